"""SparseVLM: by the attention of the text tokens that have to do with the images; its first version merges what is dropped."""

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
    """Prunes in three stages by the attention of the raters; the best of what is dropped lives on, clustered.

    Source: Zhang et al. 2024, arXiv 2410.04417; github.com/Gumpest/SparseVLMs, 26a5f48, version 1: as layers 2, 6 and 15 of 32
    are left, so before the next, to 303, 110 and 36 tokens and the clusters, for a mean of 128 of 576. The released code counts
    positions again; here tokens keep theirs, and a cluster that of its centre.

    Args:
        layer: of the first stage; the others follow as far into the layers behind it as published.
        merge: whether dropped tokens live on in clusters, which are kept besides. Nothing does under a keep of 0.
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

        # Computed once, and only where it is needed: tokens are ranked by it, over its trend, and merged by it as it is.
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
    """Prunes in three stages by the raters' attention over what rotary positions alone give a key, in half of the heads.

    Source: github.com/Gumpest/SparseVLMs, 26a5f48, version 2: as layers 2, 6 and 15 of 32 are left, to 238, 108 and 60 tokens
    for a mean of 128 of 576. Nothing is merged, and tokens keep their positions. What rotary positions give may be near 0, and
    the released code divides by it all the same; see `scores.rotary_weights`.

    Args:
        layer: of the first stage; the others follow as far into the layers behind it as published.
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
