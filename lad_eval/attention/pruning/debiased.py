"""Pruners that rank by attention, and the trend over a token's index that can be divided out of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from lad_eval.attention.interventions.base import CalibratedIntervention, Passes
from lad_eval.attention.pruning.pruner import Pruner
from lad_eval.attention.pruning.trend import (
    ATTENTION,
    ENOUGH_REQUESTS,
    KEPT_AFTER,
    KEPT_BEFORE,
    Exponential,
    Floats,
    Grid,
    MeansArrays,
    ScoreMeans,
    Trend,
    TrendKind,
    TrendOver,
    fit_exponential,
)
from lad_eval.errors import UserError

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.layout import PromptLayout
    from lad_eval.attention.pruning.stages import PruningDecision, StageInput


@dataclass(frozen=True)
class DebiasedPruner(Pruner, CalibratedIntervention):
    """Ranks by attention; with `trend`, its first stage ranks by attention divided by its trend and drops padding first.

    Source: arXiv 2508.17807. A subclass gives `_attention`.

    Args:
        trend: what attention is divided by: "exp", an exponential in the token's index; "mean", the mean attention to the index;
            "none", nothing. "exp" and "mean" are learned from calibration prompts.
        over: what the index counts: "sequence", the visual tokens of the prompt; "image", those of each image.

    Attributes:
        padding: a visual token counts as padding if more than this share of its pixels is.
    """

    trend: TrendKind = "none"
    over: TrendOver = "sequence"
    padding: ClassVar[float] = 0.5

    @property
    def reads_padding(self) -> bool:
        return self.trend != "none"

    @property
    def is_ready(self) -> bool:
        return self.trend == "none" or super().is_ready

    @property
    def calibration_requests(self) -> int:
        """Number of requests that a trend should be fitted to; see `Trend.warning`."""
        return ENOUGH_REQUESTS

    @property
    def learned_trend(self) -> Trend | None:
        """None before calibration, and where nothing is learned."""
        return None if self.learned is None else Trend.of_arrays(self.learned.arrays)

    def fault_of_learned(self, arrays: Mapping[str, Floats]) -> str | None:
        try:
            trend = Trend.of_arrays(arrays)
            frequencies = [*KEPT_BEFORE.read(arrays).items(), *KEPT_AFTER.read(arrays).items()]
        except (UserError, KeyError, ValueError):
            return "it is not a trend of visual tokens"
        if (trend.kind, trend.over) != (self.trend, self.over):
            return f"it is a trend of kind {trend.kind!r} over the {trend.over}"
        if any(not values.shape == counts.shape == (sum(grid),) for grid, (values, counts) in frequencies):
            return "it does not have a value for every visual token"
        return None

    @property
    def strengths(self) -> dict[str, Exponential]:
        """Strength of the bias in calibration: of the attention, and of how often each index is kept before and after."""
        if (trend := self.learned_trend) is None:
            return {}
        strengths = {ATTENTION.label: trend.exponential}
        for kind in (KEPT_BEFORE, KEPT_AFTER):
            frequencies = self.kept_frequencies(kind)
            # If no token is kept, or all are, there is no frequency to fit.
            if any(frequency.any() for frequency, _ in frequencies.values()):
                strengths[kind.label] = fit_exponential(frequencies)
        return strengths

    def kept_frequencies(self, kind: MeansArrays) -> dict[Grid, tuple[Floats, Floats]]:
        """How often each index is kept at the first stage, and the number of calibration prompts: Float[L] each, by grid.

        Args:
            kind: `KEPT_BEFORE` or `KEPT_AFTER` the trend is taken out.
        """
        return {} if self.learned is None else kind.read(self.learned.arrays)

    @property
    def learned_notes(self) -> tuple[str, ...]:
        if (trend := self.learned_trend) is None:
            return ()
        shown = f"{self.label}: {trend.exponential}."
        return (shown,) if trend.warning is None else (shown, f"{self.label}: {trend.warning}")

    @abstractmethod
    def _attention(self, inputs: StageInput, stage: int) -> torch.Tensor:
        """Float[batch, T], not negative, as published; arguments as of `_scores`."""

    def _scores(self, inputs: StageInput, stage: int) -> torch.Tensor:
        return self._debiased(self._attention(inputs, stage), inputs, stage)

    def _debiased(self, attention: torch.Tensor, inputs: StageInput, stage: int) -> torch.Tensor:
        """Attention from `_attention`, divided by the trend at the first stage."""
        from lad_eval.attention.pruning.scores import debiased

        if stage or (trend := self.learned_trend) is None:
            return attention
        curves = [trend.curve(grid) for grid in _grids(inputs.layout)]
        return debiased(attention, inputs.layout.visual, curves, self._padding(inputs.layout))

    def _candidates(self, inputs: StageInput, stage: int) -> torch.Tensor:
        if stage or self.trend == "none":
            return inputs.remaining
        return inputs.remaining & ~self._padding(inputs.layout).to(inputs.remaining.device)

    def _padding(self, layout: PromptLayout) -> torch.Tensor:
        """Bool[batch, T]: the visual tokens that show padding of pictures."""
        return layout.visual & (layout.padding_share > self.padding)

    def _learn(self, model: Any, passes: Passes) -> dict[str, Any]:
        from lad_eval.attention.hooks import decoder_layers
        from lad_eval.attention.pruning.decoder import check_stages
        from lad_eval.attention.pruning.keep import group_sizes, highest, token_counts
        from lad_eval.attention.pruning.scores import debiased
        from lad_eval.attention.pruning.stages import PruningDecision, pruned

        first = self._layers(len(decoder_layers(model)))[0]
        check_stages(model, (first,), "drop", self.name)
        means = ScoreMeans(self.over)
        prompts: list[tuple[PromptLayout, torch.Tensor, torch.Tensor]] = []

        def note(layout: PromptLayout, inputs: StageInput) -> PruningDecision:
            attention = self._attention(inputs, 0).cpu()
            prompts.append((layout, attention, self._groups(inputs).cpu()))
            _add(means, attention, layout, ~self._padding(layout))
            return PruningDecision(inputs.remaining)

        for layout, run in passes:
            with pruned(model, layout, {first: partial(note, layout)}):
                run()
        if not prompts:
            return {}
        trend = Trend.fitted(self.trend, means)
        kept_before, kept_after = ScoreMeans(self.over), ScoreMeans(self.over)
        for layout, attention, groups in prompts:
            sizes, padding = group_sizes(groups), self._padding(layout)
            counts = token_counts(self._shares(self._mean_share(sizes))[0], sizes)
            repaired = debiased(attention, layout.visual, [trend.curve(grid) for grid in _grids(layout)], padding)
            _add(kept_before, highest(attention, groups, counts), layout)
            _add(kept_after, highest(repaired, groups.masked_fill(padding, -1), counts), layout)
        return {**trend.arrays(), **KEPT_BEFORE.write(kept_before.means), **KEPT_AFTER.write(kept_after.means)}


def _grids(layout: PromptLayout) -> list[Grid]:
    """Visual tokens of each image, of every prompt."""
    return [tuple(owner[owner >= 0].bincount().tolist()) for owner in layout.spans.owner]


def _add(means: ScoreMeans, values: torch.Tensor, layout: PromptLayout, usable: torch.Tensor | None = None) -> None:
    for b, (visual, grid) in enumerate(zip(layout.visual, _grids(layout), strict=True)):
        means.add(values[b, visual].numpy(), grid, None if usable is None else usable[b, visual].numpy())
