"""Prompts that show the same images as others, read from the others' key-value cache.

A prompt and its probe differ after the images only, where they have text. The probe's last tokens go on from the cache of the
prompt: all tokens of the prompt that the probe does not have are masked there, and the positions are the probe's own.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from lad_eval.attention.caches import cache_argument
from lad_eval.attention.hooks import AttentionCall, attention_implementation, decoder_layers
from lad_eval.attention.masks import additive_mask, reach
from lad_eval.attention.spans import Spans
from lad_eval.models.inference.continuation import last_logits

if TYPE_CHECKING:
    from lad_eval.models.inputs.preparation import Batch


@dataclass(frozen=True)
class Tail:
    """What is to be read of n prompts on the cache of n others.

    Attributes:
        ids: Int[n, S], the last tokens; everything before them is in the cache.
        positions: Int[n, S], or Int[axes, n, S] where a model has several rotary axes.
        shared: Bool[n, T], the tokens in the cache that the prompts have too.
        spans: of the images, in the cache and the tail together.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    shared: torch.Tensor
    spans: Spans


class Causality:
    """Whether every attention call of a prefill that it observes is causal, has no window and takes masks of single entries.

    The cache of a token then depends on the tokens before it only.
    """

    def __init__(self) -> None:
        self.holds = True
        self._checked: Any = None

    def observe(self, call: AttentionCall) -> None:
        """Takes an attention call; masks that layers share are checked once."""
        length = call.query.shape[2]
        if not self.holds or (call.mask is not None and call.mask is self._checked):
            return
        near = [extent for extent in reach(call) if extent is not None and extent < length]
        if near or attention_implementation(call.module) not in ("sdpa", "eager") or length != call.key.shape[2]:
            self.holds = False
        elif call.mask is None:
            self.holds = call.is_causal
        else:
            mask = additive_mask(call)
            seen = mask >= torch.finfo(mask.dtype).min / 2
            self.holds = not bool(seen.triu(diagonal=1).any())
            self._checked = call.mask


def tail_of(model: Any, first: Batch, second: Batch) -> Tail | None:
    """What is to be read of the second batch's prompts on the cache of the first one's, row by row.

    None: rows show other images, differ before these end, or the model takes no positions.
    """
    if first.images != second.images:
        return None
    masks = [batch.layout.attended for batch in (first, second)]
    starts = [mask.int().argmax(dim=1).tolist() for mask in masks]
    ids = [batch.inputs["input_ids"] for batch in (first, second)]
    length, images_end = ids[1].shape[1], second.spans.delimited[..., 1].amax(dim=1).tolist()
    common = []
    for row, (here, there) in enumerate(zip(*starts, strict=True)):
        one, other = ids[0][row, here:], ids[1][row, there:]
        shorter = min(len(one), len(other) - 1)
        differing = (one[:shorter] != other[:shorter]).nonzero()
        common.append(int(differing[0]) if len(differing) else shorter)
    size = max(length - there - same for there, same in zip(starts[1], common, strict=True))
    # All rows read as many tokens, so the tail may begin before the prompts differ, but not before the images end.
    if any(length - size < end for end in images_end) or (positions := _positions(model, second, masks[1])) is None:
        return None
    shared_counts = torch.tensor([length - size - there for there in starts[1]])[:, None]
    place = torch.arange(ids[0].shape[1])[None, :] - torch.tensor(starts[0])[:, None]
    shared = (place >= 0) & (place < shared_counts)
    return Tail(ids[1][:, -size:], positions[..., -size:], shared, first.spans.extended(size))


def holds_every_token(model: Any, cache: Any) -> bool:
    """Whether a cache has the keys and values of all tokens in every decoder layer: no window, no recurrent state."""
    from transformers.cache_utils import DynamicLayer

    layers = getattr(cache, "layers", ())
    return len(layers) == len(decoder_layers(model)) and all(type(layer) is DynamicLayer for layer in layers)


def read_tail(model: Any, cache: Any, tail: Tail) -> tuple[Any, torch.Tensor]:
    """The model's output for the tail, and the attention mask Int[n, T + S] of cache and tail; the cache is not changed.

    Args:
        model: that made the cache.
        cache: for which `holds_every_token`.
        tail: of `tail_of`.
    """
    device = model.device
    attended = torch.nn.functional.pad(tail.shared.long(), (0, tail.ids.shape[1]), value=1).to(device)
    twin = copy.copy(cache)
    twin.layers = [copy.copy(layer) for layer in cache.layers]  # whose update makes new tensors
    with last_logits(model, 1) as options:
        output = model(
            input_ids=tail.ids.to(device),
            attention_mask=attended,
            position_ids=tail.positions.to(device),
            use_cache=True,
            **{cache_argument(model): twin},
            **options,
        )
    return output, attended


def _positions(model: Any, batch: Batch, attended: torch.Tensor) -> torch.Tensor | None:
    """The positions of a batch's tokens; None where they are not known, or the model takes none."""
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        return None
    if batch.positions is not None:
        return batch.positions.ids
    if hasattr(getattr(model, "model", model), "rope_deltas"):
        return None
    return (attended.long().cumsum(-1) - 1).clamp(min=0)
