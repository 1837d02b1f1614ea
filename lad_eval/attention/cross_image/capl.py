"""Cross-image attention of CAPL: every second layer averages in a second pass in which images attend to each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from lad_eval.attention.interventions.base import Acted, Intervention
from lad_eval.parameters import Count, Number, Share

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.hooks import AttentionCall, AttentionOutput, Run
    from lad_eval.attention.layout import PromptLayout


@dataclass(frozen=True)
class Weight(Number):
    """A number of 0 to 1."""

    expected = "a number of 0 to 1"

    def accepts(self, value: Any) -> bool:
        return super().accepts(value) and 0 <= value <= 1


@dataclass(frozen=True)
class Capl(Intervention):
    """Fused attention between images: every n-th layer that attends averages in a pass in which images attend to each other.

    Source: CAPL, arXiv 2603.07048 (github.com/yyyxcleo/CAPL, d886687). An image's key tokens are the `rho` of its visual tokens
    with the largest norms, as they enter the decoder. In the second pass key tokens of different images attend to each other
    whatever their order; the output is (1 - weight) times the model's pass plus weight times the second one, before the output
    projection. Only the prompt is changed: a reply's tokens attend as in the unchanged model. Prompts of one image are not
    changed.

    Where a layer attends within a sliding window or a chunk, so does the second pass. Where a mask is not causal (image blocks of
    Gemma 3), it is kept, and entries are opened in it.

    Args:
        rho: share of an image's visual tokens that are its key tokens, in (0, 1]; one token at least.
        weight: of the second pass, in [0, 1].
        every: n: applies to every n-th of the decoder layers that attend, the first included; linear-attention layers are not
            counted.

    Raises:
        UserError: a parameter cannot have its value.
    """

    name: ClassVar[str] = "capl"
    idle: ClassVar[str] = "as its images attend to each other already"
    sole: ClassVar[str] = "cross-image mask"
    rho: Annotated[float, Share()] = 0.95
    weight: Annotated[float, Weight()] = 0.5
    every: Annotated[int, Count()] = 2

    def _concerns(self, layout: PromptLayout) -> bool:
        return layout.spans.image.shape[1] > 1

    @contextmanager
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> Iterator[None]:
        from lad_eval.attention.cross_image.masks import OpenedRows, key_tokens, opened_rows
        from lad_eval.attention.hooks import around_attention, attending_layers
        from lad_eval.attention.layer_hooks import observe_embeddings
        from lad_eval.attention.masks import HeldByMask, check_entry_masks

        check_entry_masks(model)
        layers = frozenset(attending_layers(model, self.every))
        key_owner: torch.Tensor | None = None

        def choose(embeddings: torch.Tensor) -> None:
            nonlocal key_owner
            if embeddings.shape[:2] == layout.spans.owner.shape:
                key_owner = key_tokens(embeddings, layout.spans.owner, self.rho)
                rows_of.clear()

        def rows_of_call(call: AttentionCall) -> OpenedRows | None:
            return None if key_owner is None else opened_rows(call, key_owner)

        rows_of = HeldByMask(rows_of_call)

        def around(call: AttentionCall, run: Run) -> AttentionOutput:
            output, weights = run(call.query, call.mask)
            if call.layer not in layers or not call.is_prefill(layout.length) or (rows := rows_of(call)) is None:
                return output, weights
            acted()
            index = rows.index[:, None, :, None].expand(-1, call.query.shape[1], -1, call.query.shape[3])
            second, second_weights = run(call.query.gather(2, index), rows.mask)
            fused = _fused(output, second, rows, 1, self.weight)
            if weights is not None and second_weights is not None:
                weights = _fused(weights, second_weights, rows, 2, self.weight)
            return fused, weights

        with observe_embeddings(model, choose), around_attention(model, around):
            yield


def _fused(first: torch.Tensor, second: torch.Tensor, rows: Any, dim: int, weight: float) -> torch.Tensor:
    """The first pass, averaged with the second one at the queries that the second one ran (dimension `dim`)."""
    shape = [1] * first.dim()
    shape[0], shape[dim] = rows.index.shape
    index = rows.index.reshape(shape).expand_as(second)
    plain = first.gather(dim, index)
    mean = (1 - weight) * plain + weight * second
    return first.scatter(dim, index, mean.where(rows.gains.reshape(shape), plain))
