"""Runs layers on the remaining tokens of a prompt only: inputs gathered, masks cut, outputs put back.

A prompt's remaining tokens are in *slots*, Int[batch, S]: the position of each in the prompt. Rows with fewer tokens than the
others have slots of -1 at the front, whose content is hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from lad_eval.attention.hooks import attention_implementation
from lad_eval.errors import UnsupportedModelError


@dataclass(frozen=True)
class Slots:
    """Positions in the prompt of the tokens that a layer runs on.

    Attributes:
        positions: Int[batch, S], ascending; -1 at the front.
        length: tokens of the padded prompts, T.
    """

    positions: torch.Tensor
    length: int

    @classmethod
    def of(cls, remaining: torch.Tensor) -> Slots:
        """Slots of the tokens that are True in Bool[batch, T]."""
        counts = remaining.sum(dim=1)
        widest = int(counts.max())
        places = remaining.to(torch.uint8).argsort(dim=1, stable=True)[:, remaining.shape[1] - widest :]
        filled = torch.arange(widest, device=remaining.device) >= widest - counts[:, None]
        return cls(torch.where(filled, places, -1), remaining.shape[1])

    @cached_property
    def _filled(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Row, slot and position of every slot that is not -1."""
        row, slot = (self.positions >= 0).nonzero(as_tuple=True)
        return row, slot, self.positions[row, slot]

    def take(self, table: torch.Tensor, dim: int, batch_dim: int | None) -> torch.Tensor:
        """Entries of a table at the slots instead of its T entries along `dim`; a batch of 1 is used for all rows."""
        index = self.positions.clamp(min=0).to(table.device)
        if batch_dim is None:
            table, batch_dim, dim = table[None], 0, dim % table.dim() + 1
        dim, batch_dim = dim % table.dim(), batch_dim % table.dim()
        table = table.expand(*(len(index) if place == batch_dim else size for place, size in enumerate(table.shape)))
        moved = table.movedim((batch_dim, dim), (0, 1))
        rows = torch.arange(len(index), device=table.device)[:, None]
        return moved[rows, index].movedim((0, 1), (batch_dim, dim))

    def put(self, hidden: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
        """Hidden states Float[batch, T, D] with the outputs for the slots, Float[batch, S, D], at their positions."""
        row, slot, position = (index.to(made.device) for index in self._filled)
        full = hidden.to(made.device, copy=True)
        full[row, position] = made[row, slot]
        return full


def compacted_inputs(
    args: tuple[Any, ...], kwargs: dict[str, Any], slots: Slots, batch: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A decoder layer's inputs, the hidden states first, for the tokens in the slots only; masks are not changed.

    The token dimension is the last one of position ids, the last but one of position embeddings (complex numbers, or cosines and
    sines), and the one after the batch in everything else with one entry per token.
    """

    def taken(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[:2] == (batch, slots.length):
            return slots.take(value, 1, 0)
        return value

    made = {name: taken(value) for name, value in kwargs.items() if name not in _BY_NAME}
    for name, take in _BY_NAME.items():
        if name in kwargs:
            made[name] = take(kwargs[name], slots)
    return tuple(map(taken, args)), made


def _positions(ids: Any, slots: Slots) -> Any:
    if not isinstance(ids, torch.Tensor) or ids.shape[-1] != slots.length:
        return ids
    return slots.take(ids, -1, None if ids.dim() == 1 else -2)


def _embeddings(embeddings: Any, slots: Slots) -> Any:
    if isinstance(embeddings, tuple):
        return tuple(_embeddings(part, slots) for part in embeddings)
    if not isinstance(embeddings, torch.Tensor) or embeddings.shape[-2] != slots.length:
        return embeddings
    return slots.take(embeddings, -2, None if embeddings.dim() == 2 else -3)


_BY_NAME: dict[str, Callable[[Any, Slots], Any]] = {
    "attention_mask": lambda mask, slots: mask,
    "position_ids": _positions,
    "position_embeddings": _embeddings,
}


def mask_form(attention: torch.nn.Module) -> str:
    """The form of mask that a layer's attention takes: "bool", "float" or, for flash attention, "keys".

    Raises:
        UnsupportedModelError: it takes another form.
    """
    implementation = attention_implementation(attention)
    form = "keys" if implementation.startswith("flash_attention") else {"sdpa": "bool", "eager": "float"}.get(implementation)
    if form is None:
        raise UnsupportedModelError(
            f"Attention implementation {implementation!r} takes masks that cannot be cut to fewer tokens; use --attn sdpa or "
            "eager."
        )
    return form


def cut_keys(mask: Any, keys: torch.Tensor) -> torch.Tensor | None:
    """A mask of keys, Int[batch, T] or None, cut to the keys at Int[batch, K] positions, -1 hidden."""
    real = keys >= 0
    if mask is None:
        return None if bool(real.all()) else real.long()
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2:
        raise _unknown(mask)
    return mask.to(keys.device).gather(1, keys.clamp(min=0)) * real


def cut_entries(mask: Any, queries: torch.Tensor, keys: torch.Tensor, form: str, dtype: torch.dtype) -> torch.Tensor | None:
    """A prefill's mask of single entries, cut to some queries and keys.

    Args:
        mask: None (causal, nothing hidden), or Bool or Float[batch or 1, heads or 1, T, T]; of the last queries only where
            `queries` are those.
        queries: Int[batch, Q], their positions; -1 attends to itself only, so that its row is not empty.
        keys: Int[batch, K], their positions; -1 is hidden.
        form: see `mask_form`.
        dtype: of the hidden states.

    Raises:
        UnsupportedModelError: the mask has another form.
    """
    real = keys >= 0
    if mask is None:
        if queries.shape == keys.shape and bool(real.all()):
            return None  # causal among the remaining tokens, too
        seen = real[:, None] & (keys[:, None] <= queries[:, :, None])
        return written(seen[:, None] | _itself(queries, keys), form, dtype)
    if not isinstance(mask, torch.Tensor) or mask.dim() != 4:
        raise _unknown(mask)
    mask = mask.expand(len(keys), *mask.shape[1:])
    first = mask.shape[3] - mask.shape[2]
    batch = torch.arange(len(keys), device=mask.device)[:, None, None]
    rows, columns = (queries - first).clamp(min=0)[:, :, None], keys.clamp(min=0)[:, None]
    cut: torch.Tensor = mask[batch, :, rows, columns].movedim(-1, 1)
    sees, hides = (True, False) if mask.dtype == torch.bool else (0.0, torch.finfo(mask.dtype).min)
    return cut.masked_fill(~real[:, None, None], hides).masked_fill(_itself(queries, keys), sees)


def written(seen: torch.Tensor, form: str, dtype: torch.dtype) -> torch.Tensor:
    """The mask in which queries attend where Bool[batch, 1, Q, K] is True, in a form of `mask_form` except "keys"."""
    if form == "bool":
        return seen
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)


def _itself(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Bool[batch, 1, Q, K]: the entries at which a slot of -1 meets itself."""
    if queries.shape != keys.shape:
        return torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=keys.device)
    return ((queries < 0)[:, :, None] & torch.eye(keys.shape[1], dtype=torch.bool, device=keys.device))[:, None]


def _unknown(mask: Any) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Attention masks of the form {type(mask).__name__} cannot be cut to fewer tokens; use --attn sdpa or eager."
    )
