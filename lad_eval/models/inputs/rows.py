"""A prompt's tokens, remembered: a question's text becomes the same tokens whichever pictures of these sizes it shows."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from lad_eval.attention.spans import Spans
from lad_eval.models.inputs.cache import ByteLRU
from lad_eval.models.inputs.images import Size

_ROW_BYTES = 16 * 2**20


@dataclass(frozen=True)
class PromptKey:
    """What the tokens of a prompt depend on.

    Attributes:
        prompt: with one placeholder per picture.
        labels: of the pictures, which their spans contain.
        sizes: of the pictures as passed to the processor.
        drop: tokens removed from the prompt's end.
        lead: tokens appended to it.
    """

    prompt: str
    labels: tuple[str, ...]
    sizes: tuple[Size, ...]
    drop: int
    lead: tuple[int, ...]


@dataclass(frozen=True)
class Positions:
    """Rotary positions of several axes, as the model computes them.

    Attributes:
        ids: Int[axes, batch, T].
        deltas: Int[batch, 1], what the next text token's position exceeds its index by.
    """

    ids: torch.Tensor
    deltas: torch.Tensor


@dataclass(frozen=True)
class PromptRow:
    """A prompt without padding.

    Attributes:
        text: Int[1, T] by the name of the input: input_ids, attention_mask, token types.
        spans: of its pictures.
        positions: None for a model with one axis of positions.
        dropped: outputs of the image processor that are no inputs of the model.
    """

    text: Mapping[str, torch.Tensor]
    spans: Spans
    positions: Positions | None
    dropped: frozenset[str] = frozenset()

    @property
    def length(self) -> int:
        return self.spans.length

    @property
    def nbytes(self) -> int:
        tensors = [*self.text.values(), self.spans.image, self.spans.delimited, self.spans.owner]
        return sum(tensor.nbytes for tensor in tensors) + (0 if self.positions is None else self.positions.ids.nbytes)


def row_cache() -> ByteLRU[PromptKey, PromptRow]:
    """An empty cache of rows."""
    return ByteLRU(_ROW_BYTES, lambda row: row.nbytes)


def stacked(rows: Sequence[PromptRow], fillers: Mapping[str, int]) -> PromptRow:
    """The rows as one batch, padded on the left; its tensors have a row for each.

    Args:
        rows: with inputs of the same names.
        fillers: values on the padding, by the name of the input; 0 where there is none.
    """
    longest = max(row.length for row in rows)
    shifts = [longest - row.length for row in rows]

    def padded(parts: Sequence[torch.Tensor], filler: int = 0, dim: int = 0) -> torch.Tensor:
        if any(shifts):
            pad = torch.nn.functional.pad
            parts = [pad(part, (shift, 0), value=filler) for part, shift in zip(parts, shifts, strict=True)]
        return torch.cat(list(parts), dim=dim)

    moved = torch.tensor(shifts)[:, None, None]
    labels = [row.spans.label for row in rows if row.spans.label is not None]
    spans = Spans(
        torch.cat([row.spans.image for row in rows]) + moved,
        torch.cat([row.spans.delimited for row in rows]) + moved,
        padded([row.spans.owner for row in rows], -1),
        torch.cat(labels) if len(labels) == len(rows) else None,
    )
    text = {name: padded([row.text[name] for row in rows], fillers.get(name, 0)) for name in rows[0].text}
    every = [row.positions for row in rows if row.positions is not None]
    if len(every) < len(rows):
        return PromptRow(text, spans, None)
    return PromptRow(text, spans, Positions(padded([one.ids for one in every], dim=1), torch.cat([one.deltas for one in every])))


class PositionMaker:
    """Computes the positions of a model with several rotary axes before its forward pass, which would otherwise do so.

    On a GPU the model's own computation waits for the device, token group by token group. It is the model's function that is
    called here, too, and its first result is compared with what the forward pass would use.

    Args:
        model: of transformers, or a configuration; one without such positions gets none.
    """

    def __init__(self, model: Any) -> None:
        inner = getattr(model, "model", model)
        known = all(hasattr(inner, name) for name in ("rope_deltas", "get_rope_index", "compute_3d_position_ids"))
        self._inner = inner if known else None
        self._checked = False

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> Positions | None:
        """Positions of a batch; None where the model must compute them itself.

        Args:
            inputs: text inputs, and the small tensors that describe pictures; on the CPU.
        """
        if self._inner is None or "input_ids" not in inputs:
            return None
        ids, deltas = self._inner.get_rope_index(**_accepted(self._inner.get_rope_index, inputs))
        if not self._checked:
            before = self._inner.rope_deltas
            theirs = self._inner.compute_3d_position_ids(**_accepted(self._inner.compute_3d_position_ids, inputs))
            same = theirs is not None and torch.equal(theirs, ids) and torch.equal(self._inner.rope_deltas, deltas)
            self._inner.rope_deltas = before
            self._checked = True
            if not same:
                self._inner = None
                return None
        return Positions(ids, deltas)


def _accepted(function: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs that a function takes; None for its other arguments without a default."""
    required = _arguments(getattr(function, "__func__", function))
    return {name: inputs.get(name) for name in required if name in inputs or required[name]}


@cache
def _arguments(function: Any) -> dict[str, bool]:
    """The names of a function's or method's arguments, and whether each is required."""
    parameters = inspect.signature(function).parameters
    named = {name: one for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD and name != "self"}
    return {name: one.default is one.empty for name, one in named.items()}
