"""TokenCarve: ranks by attention and by what a token contributes to its image, and merges the lower-ranked tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, ClassVar

from lad_eval.attention.pruning.debiased import DebiasedPruner

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.pruning.stages import PruningDecision, StageInput


@dataclass(frozen=True)
class TokenCarve(DebiasedPruner):
    """Ranks half by FastV's attention and half by information, keeps 1.5 times `keep` tokens and merges the surplus.

    Source: TokenCarve, github.com/ShawnTan86/TokenCarve, a57bd59. The released code also removes dropped tokens from the caches
    of earlier layers, which is not done here. A trend is divided out of the attention before it is ranked.
    """

    name: ClassVar[str] = "tokencarve"

    def _shares(self, mean: torch.Tensor) -> list[torch.Tensor]:
        return [(1.5 * mean).clamp(max=1.0)]

    def _attention(self, inputs: StageInput, stage: int) -> torch.Tensor:
        from lad_eval.attention.pruning.scores import last_token_attention

        return last_token_attention(inputs.attention, inputs.layout.length)

    def _scores(self, inputs: StageInput, stage: int) -> torch.Tensor:
        from lad_eval.attention.pruning.scores import information, tokencarve

        groups = self._groups(inputs).masked_fill(~self._candidates(inputs, stage), -1)
        attention = super()._scores(inputs, stage).to(groups.device)
        return tokencarve(attention, information(inputs.hidden, groups).to(groups.device), groups)

    def _decide(self, inputs: StageInput, stage: int) -> PruningDecision:
        from lad_eval.attention.pruning.keep import group_sizes, token_counts
        from lad_eval.attention.pruning.merging import merged_into_similar

        scores = cache(lambda: self._scores(inputs, stage))
        decision = self._keep_highest(inputs, stage, scores)
        groups = self._groups(inputs)
        sizes = group_sizes(groups)
        counts = token_counts(self._mean_share(sizes), sizes)
        left = groups.masked_fill(~decision.remaining, -1)
        surplus = group_sizes(left, sizes.shape[1]) - counts
        if not bool((surplus > 0).any()):
            return decision
        remaining, hidden = decision.remaining.clone(), inputs.hidden.clone()
        for b, group in (surplus > 0).nonzero().tolist():
            tokens = (left[b] == group).nonzero()[:, 0]
            ranked = tokens[scores()[b, tokens].argsort(descending=True, stable=True)]
            staying, hidden[b] = merged_into_similar(hidden[b], ranked, int(surplus[b, group]))
            remaining[b, tokens] = False
            remaining[b, staying] = True
        return replace(decision, remaining=remaining, hidden=hidden)
