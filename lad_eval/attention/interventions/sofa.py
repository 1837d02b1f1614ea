"""Soft attention between images: a mask that lets images look at later ones, in the ordinary attention function."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from lad_eval.attention.hooks import AttentionCall, attention_layers, change_mask
from lad_eval.attention.spans import Spans
from lad_eval.errors import UnsupportedModelError


@contextmanager
def soften(model: Any, spans: Spans, *, sigma: float, every: int, pairs: str) -> Iterator[None]:
    """While open, the prefill of the prompts that `spans` belongs to attends softly; parameters as `interventions.Sofa`.

    Steps that continue a prompt have no image among their queries and pass by.

    Raises:
        UnsupportedModelError: the attention implementation takes no mask of single entries, or no attention call was changed
            by the time the context closes.
    """
    softener = _Softener(spans, sorted(attention_layers(model))[::every], sigma, pairs)
    with change_mask(model, softener):
        yield
    if not softener.changed:
        raise UnsupportedModelError(
            f"{type(model).__name__}: sofa changed no attention call, as no entry between its images is blocked; its answers "
            "would be the unchanged model's, so leave out the methods with sofa."
        )


class _Softener:
    """Makes the masks.

    Attributes:
        changed: whether an entry of any mask was opened.
    """

    def __init__(self, spans: Spans, layers: Sequence[int], sigma: float, pairs: str) -> None:
        self.changed = False
        self._spans, self._layers, self._log_sigma, self._pairs = spans, frozenset(layers), math.log(sigma), pairs
        self._opened: dict[torch.device, torch.Tensor] = {}
        # The layers of a kind share one mask: what was made of it is kept beside it.
        self._made: list[tuple[Any, torch.dtype, torch.Tensor]] = []

    def __call__(self, call: AttentionCall) -> Any:
        if call.query.shape[2] != self._spans.length or call.layer not in self._layers:
            return call.mask
        for mask, dtype, made in self._made:
            if mask is call.mask and dtype == call.query.dtype:
                return made
        made = self._softened(call)
        self._made.append((call.mask, call.query.dtype, made))
        return made

    def _softened(self, call: AttentionCall) -> torch.Tensor:
        base = _additive(call)
        rows, length = len(self._spans.image), self._spans.length
        base = base.expand(rows, *base.shape[1:]).clone()
        opened = self._entries(base.device)
        square = base[..., :length]
        blocked = square < torch.finfo(base.dtype).min / 2
        softened = blocked & opened[:, None]
        self.changed = self.changed or bool(softened.any())
        square.masked_fill_(softened, self._log_sigma)
        return base

    def _entries(self, device: torch.device) -> torch.Tensor:
        """Bool[batch, T, T]: what lies ahead and leads from an image's token to an image's token."""
        if device not in self._opened:
            tokens = torch.arange(self._spans.length)
            inside = (tokens >= self._spans.image[..., :1]) & (tokens < self._spans.image[..., 1:])  # [batch, N, T]
            image = torch.where(inside.any(dim=1), inside.int().argmax(dim=1), -1)  # [batch, T]
            query, key = image[:, :, None], image[:, None, :]
            entries = (query >= 0) & (key >= 0) & (tokens[None, :] > tokens[:, None])
            if self._pairs == "between":
                entries &= query != key
            self._opened[device] = entries.to(device)
        return self._opened[device]


def _additive(call: AttentionCall) -> torch.Tensor:
    """The call's mask as Float[batch or 1, 1 or H, queries, keys] to be added to the scores."""
    mask, dtype, device = call.mask, call.query.dtype, call.query.device
    queries, keys = call.query.shape[2], call.key.shape[2]
    lowest = torch.finfo(dtype).min
    implementation = str(getattr(getattr(call.module, "config", None), "_attn_implementation", None) or "eager")
    if implementation not in ("sdpa", "eager"):
        raise UnsupportedModelError(
            f"Attention implementation {implementation!r} takes no mask of single entries, which this intervention needs; "
            "use --attn sdpa or eager."
        )
    if mask is None:
        if not getattr(call.module, "is_causal", True) or call.options.get("is_causal") is False:
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
