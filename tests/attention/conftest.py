"""Tiny random models and requests of images of unequal sizes."""

from __future__ import annotations

import types
import zlib
from contextlib import ExitStack, contextmanager
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from lad_eval.attention.hooks import decoder_layers, kept_tokens
from lad_eval.attention.spans import NOT_FOR_THE_MODEL, span_options
from lad_eval.errors import UnsupportedModelError
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
        load=load,
        dropped=dropped,
        prepare=prepare,
        for_model=for_model,
        picture=picture,
        ROWS=ROWS,
        EQUAL=EQUAL,
        UNEQUAL=UNEQUAL,
        OTHER=OTHER,
    )
