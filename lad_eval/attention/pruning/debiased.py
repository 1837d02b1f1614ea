"""Pruners by attention, and the trend of attention over a token's index that can be taken out of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from lad_eval.attention.interventions.base import CalibratedIntervention, Passes
from lad_eval.attention.pruning.pruner import Pruner
from lad_eval.attention.pruning.trend import Exponential, Grid, ScoreMeans, Trend, TrendKind, TrendOver, fit_exponential

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.layout import PromptLayout
    from lad_eval.attention.pruning.stages import Choice, Entry


@dataclass(frozen=True)
class DebiasedPruner(Pruner, CalibratedIntervention):
    """Prunes by attention; at its first stage, if asked to, by attention over its trend, and padding of pictures before all else.

    Source: arXiv 2508.17807. A subclass gives `_attention`.

    Args:
        trend: what attention is divided by: "exp", an exponential in the token's index; "mean", the mean attention to the index;
            "none", nothing. All but the last are learned from calibration prompts.
        over: what the index counts: "sequence", the visual tokens of the prompt, or "image", those of each image.

    Attributes:
        padding: a visual token is padding where more than this share of its pixels was put around the picture.
    """

    trend: TrendKind = "none"
    over: TrendOver = "sequence"
    padding: ClassVar[float] = 0.5

    @property
    def is_ready(self) -> bool:
        return self.trend == "none" or super().is_ready

    @property
    def learned_trend(self) -> Trend | None:
        """None before calibration, and where nothing is learned."""
        return None if self.learned is None else Trend.of_arrays(self.learned.arrays)

    @property
    def strengths(self) -> dict[str, Exponential]:
        """Strength of the bias in calibration: of the attention, and of how often each index was kept before and after."""
        if (trend := self.learned_trend) is None or self.learned is None:
            return {}
        made = {"attention": trend.exponential}
        for name in ("before", "after"):
            means = _read(self.learned.arrays, name)
            # Where no token is kept, or was asked for, there is no frequency to fit to.
            if any(mean.any() for mean, _ in means.values()):
                made[f"kept {name}"] = fit_exponential(means)
        return made

    @property
    def learned_notes(self) -> tuple[str, ...]:
        if (trend := self.learned_trend) is None:
            return ()
        shown = f"{self.label}: {trend.exponential}."
        return (shown,) if trend.warning is None else (shown, f"{self.label}: {trend.warning}")

    @abstractmethod
    def _attention(self, entry: Entry, stage: int) -> torch.Tensor:
        """Float[batch, T], not negative, as published; arguments as of `_scores`."""

    def _scores(self, entry: Entry, stage: int) -> torch.Tensor:
        from lad_eval.attention.pruning.scores import debiased

        attention = self._attention(entry, stage)
        if stage or (trend := self.learned_trend) is None:
            return attention
        curves = [trend.curve(grid) for grid in _grids(entry.layout)]
        return debiased(attention, entry.layout.visual, curves, self._padding(entry.layout))

    def _candidates(self, entry: Entry, stage: int) -> torch.Tensor:
        if stage or self.trend == "none":
            return entry.remaining
        return entry.remaining & ~self._padding(entry.layout).to(entry.remaining.device)

    def _padding(self, layout: PromptLayout) -> torch.Tensor:
        """Bool[batch, T]: the visual tokens that show padding of pictures."""
        return layout.visual & (layout.padding_share > self.padding)

    def _learn(self, model: Any, passes: Passes) -> dict[str, Any]:
        from lad_eval.attention.hooks import decoder_layers
        from lad_eval.attention.pruning.keep import group_sizes, highest, token_counts
        from lad_eval.attention.pruning.scores import debiased
        from lad_eval.attention.pruning.stages import Choice, check_stages, pruned

        first = self._layers(len(decoder_layers(model)))[0]
        check_stages(model, (first,), "drop", self.name)
        means = ScoreMeans(self.over)
        prompts: list[tuple[PromptLayout, torch.Tensor, torch.Tensor]] = []

        def note(layout: PromptLayout, entry: Entry) -> Choice:
            attention = self._attention(entry, 0).cpu()
            prompts.append((layout, attention, self._groups(entry).cpu()))
            _add(means, attention, layout, ~self._padding(layout))
            return Choice(entry.remaining)

        for layout, run in passes:
            with pruned(model, layout, {first: partial(note, layout)}):
                run()
        if not prompts:
            return {}
        trend = Trend.fitted(self.trend, means)
        frequencies = {"before": ScoreMeans(self.over), "after": ScoreMeans(self.over)}
        for layout, attention, groups in prompts:
            sizes, padding = group_sizes(groups), self._padding(layout)
            counts = token_counts(self._shares(self._mean_share(sizes))[0], sizes)
            repaired = debiased(attention, layout.visual, [trend.curve(grid) for grid in _grids(layout)], padding)
            _add(frequencies["before"], highest(attention, groups, counts), layout)
            _add(frequencies["after"], highest(repaired, groups.masked_fill(padding, -1), counts), layout)
        arrays: dict[str, Any] = trend.arrays()
        for name, kept in frequencies.items():
            for grid, (share, count) in kept.means.items():
                arrays |= {f"{name}/{_spelt(grid)}": share, f"{name}-count/{_spelt(grid)}": count}
        return arrays


def _grids(layout: PromptLayout) -> list[Grid]:
    """Visual tokens of each image, of every prompt."""
    return [tuple(owner[owner >= 0].bincount().tolist()) for owner in layout.spans.owner]


def _add(means: ScoreMeans, values: torch.Tensor, layout: PromptLayout, usable: torch.Tensor | None = None) -> None:
    for b, (visual, grid) in enumerate(zip(layout.visual, _grids(layout), strict=True)):
        means.add(values[b, visual].numpy(), grid, None if usable is None else usable[b, visual].numpy())


def _spelt(grid: Grid) -> str:
    return "-".join(map(str, grid))


def _read(arrays: Mapping[str, Any], name: str) -> dict[Grid, tuple[Any, Any]]:
    grids = [key.removeprefix(f"{name}/") for key in arrays if key.startswith(f"{name}/")]
    return {tuple(map(int, grid.split("-"))): (arrays[f"{name}/{grid}"], arrays[f"{name}-count/{grid}"]) for grid in grids}
