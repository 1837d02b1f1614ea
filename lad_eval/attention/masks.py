"""Attention masks written out entry by entry: blocked entries opened, keys hidden."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch

from lad_eval.attention.hooks import AttentionCall, attention_implementation, attention_layers, transform_mask
from lad_eval.attention.spans import Spans
from lad_eval.errors import UnsupportedModelError

# Number of a prefill's masks to hold: its layers share one for each kind of attention (full, sliding, chunked).
_HELD = 4

Made = TypeVar("Made")


class HeldByMask(Generic[Made]):
    """Computes `make(call)` once for all layers of a prefill that are called with the same mask."""

    def __init__(self, make: Callable[[AttentionCall], Made]) -> None:
        self._make = make
        self._held: deque[tuple[Any, Any, Any, Made]] = deque(maxlen=_HELD)

    def __call__(self, call: AttentionCall) -> Made:
        kind = (call.query.dtype, call.query.device, reach(call))
        for mask, positions, known, made in self._held:
            # The mask itself is held, so that a later one cannot have the same id.
            if mask is call.mask and positions is call.positions and known == kind:
                return made
        made = self._make(call)
        self._held.append((call.mask, call.positions, kind, made))
        return made

    def clear(self) -> None:
        self._held.clear()


def reach(call: AttentionCall) -> tuple[int | None, int | None]:
    """How far a layer attends: tokens of its sliding window, and of its chunks; None where it has none."""
    config = getattr(call.module, "config", None)
    kinds = getattr(config, "layer_types", None)
    chunked = kinds is not None and call.layer < len(kinds) and kinds[call.layer] == "chunked_attention"
    return call.options.get("sliding_window"), getattr(config, "attention_chunk_size", None) if chunked else None


class OpenedMasks:
    """A mask transform that opens blocked entries with a value added to their scores; for prefills, in chosen layers.

    Args:
        length: tokens of the prompts.
        layers: indices, in the decoder, of the layers to change.
        entries: Bool[batch, length, length], query by key: what to open where it is blocked.
        value: added to the scores of what is opened.
        acted: called for every attention call with an entry that was opened.
    """

    def __init__(
        self, length: int, layers: Sequence[int], entries: torch.Tensor, value: float, acted: Callable[[], None]
    ) -> None:
        self._length, self._layers, self._value, self._acted = length, frozenset(layers), value, acted
        self._entries = {entries.device: entries}
        self._first = entries
        self._opened = HeldByMask(self._open)

    def __call__(self, call: AttentionCall) -> Any:
        if call.layer not in self._layers or not call.is_prefill(self._length):
            return call.mask
        made, opened = self._opened(call)
        if opened:
            self._acted()
        return made

    def _open(self, call: AttentionCall) -> tuple[torch.Tensor, bool]:
        base = additive_mask(call)
        device = base.device
        if device not in self._entries:
            self._entries[device] = self._first.to(device)
        entries = entries_at(self._entries[device], call.positions)
        base = base.expand(len(entries), *base.shape[1:]).clone()
        square = base[..., : entries.shape[2]]
        opened = (square < torch.finfo(base.dtype).min / 2) & entries[:, None]
        square.masked_fill_(opened, self._value)
        return base, bool(opened.any())


def image_of_tokens(spans: Spans) -> torch.Tensor:
    """Int[batch, T]: the image in whose span a token lies, row breaks and tile marks included; -1 elsewhere."""
    tokens = torch.arange(spans.length)
    inside = (tokens >= spans.image[..., :1]) & (tokens < spans.image[..., 1:])  # [batch, N, T]
    return torch.where(inside.any(dim=1), inside.int().argmax(dim=1), -1)


def ahead_between_images(spans: Spans, *, within: bool = False) -> torch.Tensor:
    """Bool[batch, T, T], query by key: entries from a token of an image to a later token of another image.

    Row breaks and tile marks inside an image's span count as its tokens.

    Args:
        spans: of the images.
        within: include entries to later tokens of the same image.
    """
    tokens, image = torch.arange(spans.length), image_of_tokens(spans)
    query, key = image[:, :, None], image[:, None, :]
    entries = (query >= 0) & (key >= 0) & (tokens[None, :] > tokens[:, None])
    return entries if within else entries & (query != key)


def entries_at(entries: torch.Tensor, positions: torch.Tensor | None) -> torch.Tensor:
    """Bool[batch, keys, keys]: entries, Bool[batch, T, T], of the kept tokens only (`AttentionCall.positions`)."""
    if positions is None:
        return entries
    positions = positions.to(entries.device)
    index, real = positions.clamp(min=0), positions >= 0
    rows = entries.gather(1, index[:, :, None].expand(-1, -1, entries.shape[2]))
    remaining = rows.gather(2, index[:, None, :].expand(-1, index.shape[1], -1))
    return remaining & real[:, :, None] & real[:, None, :]


def additive_mask(call: AttentionCall) -> torch.Tensor:
    """The call's mask as Float[batch or 1, 1 or H, queries, keys] to be added to the scores.

    Raises:
        UnsupportedModelError: the attention implementation takes no mask of single entries.
    """
    mask, dtype, device = call.mask, call.query.dtype, call.query.device
    queries, keys = call.query.shape[2], call.key.shape[2]
    lowest = torch.finfo(dtype).min
    _check_entries(call.module)
    if mask is None:
        if not call.is_causal:
            return torch.zeros(1, 1, queries, keys, dtype=dtype, device=device)
        seen = torch.ones(queries, keys, dtype=torch.bool, device=device).tril()
        if (window := call.options.get("sliding_window")) is not None:
            seen &= torch.ones_like(seen).triu(1 - int(window))
        return torch.zeros(1, 1, queries, keys, dtype=dtype, device=device).masked_fill_(~seen, lowest)
    if not isinstance(mask, torch.Tensor) or mask.dim() != 4:
        raise UnsupportedModelError(
            f"Attention masks of the form {type(mask).__name__} cannot be changed; use --attn sdpa or eager."
        )
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill_(~mask, lowest)
    return mask.to(dtype).clamp(min=lowest)


def check_entry_masks(model: Any) -> None:
    """Checks that the model's attention takes masks of single entries.

    Raises:
        UnsupportedModelError: it does not (FlashAttention).
    """
    for module in attention_layers(model).values():
        _check_entries(module)


def _check_entries(module: torch.nn.Module) -> None:
    if (implementation := attention_implementation(module)) not in ("sdpa", "eager"):
        raise UnsupportedModelError(
            f"Attention implementation {implementation!r} takes no mask of single entries, which this intervention needs; "
            "use --attn sdpa or eager."
        )


@contextmanager
def hide_keys(model: Any, hidden: Callable[[AttentionCall], torch.Tensor | None]) -> Iterator[None]:
    """Hides keys from the model's attention calls while the context is open.

    Args:
        model: of transformers.
        hidden: the keys of a call to hide, Bool[batch, keys]; None leaves the call unchanged.
    """

    def transform(call: AttentionCall) -> Any:
        keys = hidden(call)
        if keys is None:
            return call.mask
        mask = additive_mask(call)
        return mask.expand(len(keys), *mask.shape[1:]).masked_fill(
            keys[:, None, None].to(mask.device), torch.finfo(mask.dtype).min
        )

    with transform_mask(model, transform):
        yield
