"""SparseVLM: ranks by the attention of the text tokens related to the images; version 1 merges dropped tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, ClassVar

from lad_eval.attention.pruning.debiased import DebiasedPruner
from lad_eval.attention.pruning.schedule import SPARSEVLM, SPARSEVLM_PLUS
from lad_eval.parameters import Count

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.pruning.stages import PruningDecision, StageInput


@dataclass(frozen=True)
class SparseVLM(DebiasedPruner):
    """Prunes in three stages by the attention of the raters (`scores.sparsevlm_raters`); the best dropped tokens are clustered.

    Source: Zhang et al. 2024, arXiv 2410.04417; github.com/Gumpest/SparseVLMs, 26a5f48, version 1: after layers 2, 6 and 15 of
        32,
    to 303, 110 and 36 tokens and the clusters, for a mean of 128 of 576. The released code renumbers
    positions; here tokens keep theirs, and a cluster that of its centre.

    Args:
        layer: of the first stage; the later stages are as far into the layers after it as published.
        merge: whether dropped tokens are merged into clusters, kept in addition to `keep`. With a keep of 0 there are none.
    """

    name: ClassVar[str] = "sparsevlm"
    layer: Annotated[int, Count()] = 3
    merge: bool = True

    def _layers(self, depth: int) -> tuple[int, ...]:
        return SPARSEVLM.layers(depth, self.layer)

    def _shares(self, mean: torch.Tensor) -> list[torch.Tensor]:
        return SPARSEVLM.shares(mean)

    def _attention(self, inputs: StageInput, stage: int) -> torch.Tensor:
        from lad_eval.attention.pruning.scores import sparsevlm, sparsevlm_raters

        layout = inputs.layout
        raters = sparsevlm_raters(inputs.embeddings, layout.visual, layout.attended)
        return sparsevlm(inputs.attention, raters, inputs.remaining)

    def _decide(self, inputs: StageInput, stage: int) -> PruningDecision:
        from lad_eval.attention.pruning.merging import clustered_dropped

        # Computed once, and only if needed: tokens are ranked by it divided by its trend, and merged by it unchanged.
        attention = cache(lambda: self._attention(inputs, stage))
        decision = self._keep_highest(inputs, stage, lambda: self._debiased(attention(), inputs, stage))
        dropped = self._candidates(inputs, stage) & inputs.remaining & ~decision.remaining
        if not (self.merge and self.keep and bool(dropped.any())):
            return decision
        scores = attention().to(dropped.device)
        remaining, hidden = decision.remaining.clone(), inputs.hidden.clone()
        for b in range(len(dropped)):
            clusters = clustered_dropped(inputs.hidden[b], scores[b], dropped[b])
            remaining[b, clusters.tokens] = True
            hidden[b, clusters.tokens] = clusters.hidden
        return replace(decision, remaining=remaining, hidden=hidden)


@dataclass(frozen=True)
class SparseVLMPlus(DebiasedPruner):
    """Prunes in three stages by the raters' attention divided by the weight of rotary positions alone, in half of the heads.

    Source: github.com/Gumpest/SparseVLMs, 26a5f48, version 2: after layers 2, 6 and 15 of 32, to 238, 108 and 60 tokens
    for a mean of 128 of 576. Nothing is merged, and tokens keep their positions. The weight of rotary positions may be near 0,
    and the released code divides by it anyway; see `scores.rotary_weights`.

    Args:
        layer: of the first stage; the later stages are as far into the layers after it as published.
    """

    name: ClassVar[str] = "sparsevlm-plus"
    layer: Annotated[int, Count()] = 3

    def _layers(self, depth: int) -> tuple[int, ...]:
        return SPARSEVLM_PLUS.layers(depth, self.layer)

    def _shares(self, mean: torch.Tensor) -> list[torch.Tensor]:
        return SPARSEVLM_PLUS.shares(mean)

    def _attention(self, inputs: StageInput, stage: int) -> torch.Tensor:
        from lad_eval.attention.pruning.scores import sparsevlm_plus, sparsevlm_raters

        layout = inputs.layout
        raters = sparsevlm_raters(inputs.embeddings, layout.visual, layout.attended)
        return sparsevlm_plus(inputs.attention, raters, layout.visual, inputs.remaining, inputs.rotary)
