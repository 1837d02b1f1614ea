"""Tiny random models and requests of images of unequal sizes."""

from __future__ import annotations

import types
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from lad_eval.attention.hooks import around_attention, attention_layers, decoder_layers, kept_tokens
from lad_eval.attention.layout import PromptLayout, no_padding
from lad_eval.attention.pruning.stages import PruningDecision, pruned
from lad_eval.attention.spans import NOT_FOR_THE_MODEL, image_spans, span_options
from lad_eval.errors import UnsupportedModelError
from lad_eval.models.inference.continuation import with_positions
from lad_eval.models.random import load_random

EQUAL = [(336, 336)] * 3
UNEQUAL = [(336, 336), (200, 90), (60, 300)]
OTHER = [(64, 64), (500, 400), (100, 300)]


@cache
def _load(family, attn_implementation="sdpa"):
    return load_random(family, attn_implementation=attn_implementation, dtype=torch.float32)


def load(family, attn_implementation="sdpa"):
    try:
        return _load(family, attn_implementation)
    except UnsupportedModelError as fault:
        pytest.skip(str(fault))


def picture(size, seed):
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def conversation(sizes, text):
    seed = zlib.crc32(text.encode())  # a row shows the same pictures in every batch
    images = [{"type": "image", "image": picture(size, seed + i)} for i, size in enumerate(sizes)]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


def prepare(processor, rows, **options):
    """Inputs of rows of (sizes, text), padded, with what `image_spans` needs."""
    return processor.apply_chat_template(
        [conversation(sizes, text) for sizes, text in rows],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, **span_options(processor), **options},
    )


def for_model(inputs):
    """Inputs as a float32 model takes them; Llama 4's processor makes half precise pixels."""
    given = {name: value for name, value in inputs.items() if name not in NOT_FOR_THE_MODEL}
    return {k: v.float() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in given.items()}


TEXTS = ("a red circle", "a blue square left of 25 other things", "a green one above")


def unequal_rows(count=3):
    """Rows of three images each, with unequal numbers of tokens where the family's images have them."""
    sizes = (UNEQUAL, OTHER, EQUAL)
    return [(size, f"Caption: {text}\nAnswer: ") for size, text in zip(sizes, TEXTS, strict=True)][:count]


def prompts(family, rows=3, implementation="sdpa", padding=no_padding):
    """A model, the inputs of padded prompts of three images, and their layout.

    Args:
        rows: (sizes, text) of each, or a number of `unequal_rows`, which are prepared once.
    """
    model, processor = load(family, implementation)
    if isinstance(rows, int):
        inputs, layout = _prompts(family, rows)
        return model, dict(inputs), replace(layout, find_padding=padding)
    return model, *_inputs_and_layout(model, processor, rows, padding)


@cache
def _prompts(family, count):
    return _inputs_and_layout(*load(family), unequal_rows(count), no_padding)


def _inputs_and_layout(model, processor, rows, padding):
    inputs = prepare(processor, rows)
    texts = tuple(text for _, text in rows)
    layout = PromptLayout(
        inputs["input_ids"],
        image_spans(model, processor, inputs, 3),
        inputs["attention_mask"].bool(),
        texts,
        processor.tokenizer.decode,
        padding,
        sample_ids=texts,
        keys=texts,
    )
    return with_positions(model, for_model(inputs)), layout


def logits(model, inputs, **options):
    """Float[batch, vocabulary] of the prompts' last tokens."""
    with torch.no_grad():
        return model(**inputs, use_cache=False, **options).logits[:, -1]


def under(intervention, model, inputs, layout):
    """The logits under an intervention."""
    with intervention.applied(model, layout):
        return logits(model, inputs)


def weights_of(model, inputs):
    """By layer, the weights Float[batch, H, T, T] that eager attention itself gives; and the logits."""
    weights = {}

    def around(call, run):
        output, weights[call.layer] = run(call.query, call.mask)
        return output, weights[call.layer]

    with around_attention(model, around):
        plain = logits(model, inputs)
    return weights, plain


def stage_input_before(model, inputs, layout, layer):
    """What is known before a layer of the unchanged model."""
    stage_inputs = []

    def note(stage_input):
        stage_inputs.append(stage_input)
        return PruningDecision(stage_input.remaining)

    with pruned(model, layout, {layer: note}):
        logits(model, inputs)
    return stage_inputs[0]


def all_attend_from(model, layer):
    """Whether no layer from this one on is linear."""
    return all(index in attention_layers(model) for index in range(layer, len(decoder_layers(model))))


ROWS = [(UNEQUAL, "Caption: a red circle\nAnswer: "), (OTHER, "Caption: a blue square left of 25 other things\nAnswer: ")]


@contextmanager
def dropped(model, keep, before):
    """Drops the tokens that are not in `keep`, Bool[batch, T], before a decoder layer and all later ones.

    The layers see the kept tokens alone, behind padding that fills shorter rows up; results are scattered into the full length.
    """
    widest = int(keep.sum(dim=1).max())
    positions = torch.full((len(keep), widest), -1)
    for b, row in enumerate(keep):
        places = row.nonzero()[:, 0]
        positions[b, widest - len(places) :] = places
    index = positions.clamp(min=0)
    full = []

    def compact(mask):
        causal = torch.ones(keep.shape[1], keep.shape[1], dtype=torch.bool).tril()[None, None]
        mask = causal if mask is None else mask
        mask = mask == 0 if mask.is_floating_point() else mask
        rows = mask.expand(len(keep), *mask.shape[1:]).gather(2, index[:, None, :, None].expand(-1, 1, -1, mask.shape[3]))
        square = rows.gather(3, index[:, None, None, :].expand(-1, 1, widest, -1)) & (positions >= 0)[:, None, None, :]
        return square | torch.eye(widest, dtype=torch.bool)  # padding sees itself

    def turned(table):
        table = table.expand(*table.shape[:-3], len(keep), *table.shape[-2:])
        return table.gather(-2, index[:, :, None].expand(*table.shape[:-2], widest, table.shape[-1]))

    def enter(module, args, kwargs):
        hidden = args[0]
        full.append(hidden)
        kwargs = {**kwargs, "attention_mask": compact(kwargs.get("attention_mask"))}
        if kwargs.get("position_embeddings") is not None:
            kwargs["position_embeddings"] = tuple(map(turned, kwargs["position_embeddings"]))
        return (hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[2])), *args[1:]), kwargs

    def leave(module, args, output):
        hidden = full.pop().clone()
        for b, row in enumerate(positions):
            hidden[b, row[row >= 0]] = (output if isinstance(output, torch.Tensor) else output[0])[b, row >= 0]
        return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])

    with kept_tokens(model) as kept, ExitStack() as stack:
        for number, layer in enumerate(decoder_layers(model)):
            if number >= before:
                kept[number] = positions
                stack.callback(layer.register_forward_pre_hook(enter, with_kwargs=True).remove)
                stack.callback(layer.register_forward_hook(leave).remove)
        yield


@pytest.fixture
def lab():
    """This module's helpers, as attributes."""
    return types.SimpleNamespace(
        all_attend_from=all_attend_from,
        load=load,
        logits=logits,
        prompts=prompts,
        stage_input_before=stage_input_before,
        under=under,
        unequal_rows=unequal_rows,
        weights_of=weights_of,
        dropped=dropped,
        prepare=prepare,
        for_model=for_model,
        picture=picture,
        ROWS=ROWS,
        EQUAL=EQUAL,
        UNEQUAL=UNEQUAL,
        OTHER=OTHER,
    )
