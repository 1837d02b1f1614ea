"""Prompts of several images on tiny models, and attention between images written out by hand."""

from __future__ import annotations

import math
from contextlib import contextmanager

import torch

from lad_eval.attention.hooks import around_attention, attending_layers, attention_layers, decoder_layers
from lad_eval.attention.layout import PromptLayout, no_padding
from lad_eval.attention.masks import additive_mask
from lad_eval.attention.spans import image_spans
from lad_eval.models.inference.continuation import with_positions
from lad_eval.models.random import FAMILIES

# Their images see each other in the unchanged model.
OPEN = ("paligemma", "molmo2")


CLOSED = tuple(family for family in FAMILIES if family not in OPEN)


WITHOUT_DELIMITERS = ("llava-1.5", "llava-next", "llava-onevision", "paligemma", "cohere2-vision")


def prepared(lab, family, rows=None, implementation="sdpa", images=3):
    """A model, its inputs for prompts of images of unequal sizes, the shorter padded on the left, and their layout."""
    model, processor = lab.load(family, implementation)
    rows = lab.ROWS if rows is None else rows
    inputs = lab.prepare(processor, rows)
    layout = PromptLayout(
        inputs["input_ids"],
        image_spans(model, processor, inputs, images),
        inputs["attention_mask"].bool(),
        tuple(text for _, text in rows),
        processor.tokenizer.decode,
        no_padding,
        keys=tuple(text for _, text in rows),
    )
    return model, layout, with_positions(model, lab.for_model(inputs))


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits[:, -1]


def under(intervention, model, layout, inputs):
    with intervention.applied(model, layout):
        return logits(model, inputs)


def entering(model, inputs):
    """Hidden states that enter the decoder's first layer."""
    taken = []
    handle = decoder_layers(model)[0].register_forward_pre_hook(lambda module, args: taken.append(args[0]))
    logits(model, inputs)
    handle.remove()
    return taken[0]


@contextmanager
def eager_decoder(model):
    """The same model with eager attention in its decoder; what its vision tower makes stays the same bit for bit."""
    configs = {id(module.config): module.config for module in attention_layers(model).values()}.values()
    for config in configs:
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        for config in configs:
            config._attn_implementation = "sdpa"


def chosen_by_hand(features, layout, rho):
    """The image of each key token, -1 elsewhere, by sorting one image's tokens after the other."""
    owner = layout.spans.owner
    result = torch.full_like(owner, -1)
    for b, row in enumerate(owner.tolist()):
        for image in range(max(row) + 1):
            places = [place for place, own in enumerate(row) if own == image]
            norms = {place: float(features[b, place].norm()) for place in places}
            for place in sorted(places, key=lambda place: (-norms[place], place))[: max(1, math.floor(rho * len(places)))]:
                result[b, place] = image
    return result


def between(image):
    """Bool[batch, T, T]: what leads from a token of one image to a token of another."""
    query, key = image[:, :, None], image[:, None, :]
    return (query >= 0) & (key >= 0) & (query != key)


def image_by_hand(layout):
    image = torch.full_like(layout.spans.owner, -1)
    for b, ranges in enumerate(layout.spans.image.tolist()):
        for k, (start, end) in enumerate(ranges):
            image[b, start:end] = k
    return image


def reachable(call, layout):
    """Bool[batch, 1, T, T]: what lies in one window or chunk in a layer, chunks beginning at a row's first real token."""
    places = torch.arange(layout.length)
    near = torch.ones(len(layout.ids), 1, layout.length, layout.length, dtype=torch.bool)
    if (window := call.options.get("sliding_window")) is not None:
        near &= (places[:, None] - places[None, :]).abs() < window
    if (getattr(call.module.config, "layer_types", None) or [""] * 9)[call.layer] == "chunked_attention":
        chunk = (places - (~layout.attended).sum(dim=1)[:, None]) // call.module.config.attention_chunk_size
        near &= (chunk[:, :, None] == chunk[:, None, :])[:, None]
    return near


def written_out(model, layout, inputs, mask_of, weight, every):
    """Logits of a model whose layers average the eager outputs of two masks, both whole; the weights are checked by hand."""
    layers = attending_layers(model, every)

    def around(call, run):
        if call.layer not in layers:
            return run(call.query, call.mask)
        first = additive_mask(call).expand(len(layout.ids), -1, -1, -1)
        (plain, weights), (other, _) = run(call.query, first), run(call.query, mask_of(call, first))
        if call.options.get("softcap") is None and call.options.get("s_aux") is None:
            groups = call.query.shape[1] // call.key.shape[1]
            scores = call.query @ call.key.repeat_interleave(groups, dim=1).transpose(-1, -2) * call.options["scaling"]
            torch.testing.assert_close(weights, (scores + first).softmax(dim=-1), atol=1e-5, rtol=0)
        return (1 - weight) * plain + weight * other, None

    with around_attention(model, around):
        return logits(model, inputs)
