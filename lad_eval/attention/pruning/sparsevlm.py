"""SparseVLM: by the attention of the text tokens that have to do with the images, with merging of what is dropped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from lad_eval.attention.pruning.debiased import DebiasedPruner
from lad_eval.attention.pruning.schedule import SPARSEVLM
from lad_eval.parameters import Count

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.pruning.stages import Choice, Entry


@dataclass(frozen=True)
class SparseVLM(DebiasedPruner):
    """Prunes in three stages by the attention of the raters; the best of what is dropped lives on, clustered.

    Source: Zhang et al. 2024, arXiv 2410.04417; github.com/Gumpest/SparseVLMs, 26a5f48, version 1: as layers 2, 6 and 15 of 32
    are left, so before the next, to 303, 110 and 36 tokens and the clusters, for a mean of 128 of 576. The released code counts
    positions anew; here tokens keep theirs, and a cluster that of its centre.

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

    def _attention(self, entry: Entry, stage: int) -> torch.Tensor:
        from lad_eval.attention.pruning.scores import sparsevlm, sparsevlm_raters

        layout = entry.layout
        raters = sparsevlm_raters(entry.embeddings, layout.visual, layout.attended)
        return sparsevlm(entry.attention, raters, entry.remaining)

    def _chosen(self, entry: Entry, stage: int) -> Choice:
        from lad_eval.attention.pruning.merging import clustered_dropped

        choice = super()._chosen(entry, stage)
        dropped = self._candidates(entry, stage) & entry.remaining & ~choice.remaining
        if not (self.merge and self.keep and bool(dropped.any())):
            return choice
        attention = self._attention(entry, stage).to(dropped.device)
        remaining, hidden = choice.remaining.clone(), entry.hidden.clone()
        for b in range(len(dropped)):
            clusters = clustered_dropped(entry.hidden[b], attention[b], dropped[b])
            remaining[b, clusters.tokens] = True
            hidden[b, clusters.tokens] = clusters.hidden
        return replace(choice, remaining=remaining, hidden=hidden)
