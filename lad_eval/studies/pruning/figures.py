"""The study's figures: attention and choice by token index, attention over the pictures, accuracy by the share kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lad_eval.attention.pruning.debiased import DebiasedPruner
from lad_eval.attention.pruning.fastv import FastV
from lad_eval.attention.pruning.trend import Grid, Trend, positions
from lad_eval.evidence.table import Floats
from lad_eval.metrics import summarise
from lad_eval.report.sheet import Chart, Line, Lines, Matrix
from lad_eval.run.stored import StoredRun
from lad_eval.studies.pruning.collect import Collected
from lad_eval.studies.pruning.conditions import DECISIONS, RANKINGS, rankings_of
from lad_eval.studies.pruning.tables import RANKING_NAMES, answers, share


def most_met(trend: Trend) -> Grid:
    """The grid of visual tokens that most calibration prompts had."""
    return max(trend.means, key=lambda grid: float(trend.means[grid][1].max()))


def index_charts(collected: Collected) -> tuple[Chart, ...]:
    """Mean attention by token index with the fit, and how often each index was kept before and after."""
    keep = middle([keep for keep, _ in collected.trends])
    mean, exponential = collected.trends[keep, "mean"], collected.trends[keep, "exp"]
    trend = mean.learned_trend
    if trend is None:
        return ()
    grid = most_met(trend)
    attention, _ = trend.means[grid]
    index = np.arange(len(attention), dtype=np.float64)
    relative = attention / attention.mean()
    fit = trend.exponential
    curve: Floats = fit.mu * np.exp(fit.sigma * positions(len(attention)))
    lines = (Line("mean attention", index, relative), Line(f"fit, R2 {fit.r2:.2f}", index, curve))
    top = 1.1 * float(max(relative.max(), curve.max()))
    shown = Lines("attention", lines, "visual token", "relative to the mean", top=top)
    frequencies = {
        RANKING_NAMES["none"]: _frequency(mean, "before", grid),
        RANKING_NAMES["mean"]: _frequency(mean, "after", grid),
        RANKING_NAMES["exp"]: _frequency(exponential, "after", grid),
    }
    chosen = tuple(Line(name, index, 100 * values) for name, values in frequencies.items() if values is not None)
    panels = (shown, Lines(f"{share(keep)} kept", chosen, "visual token", "kept (% of prompts)"))
    alt = "Attention to a visual token by its index, with the fitted exponential, and how often each index was kept."
    return (Chart("index", f"Attention before layer {FastV.layer}, and what is kept, by index", panels, alt),)


def heat_chart(collected: Collected) -> Chart | None:
    """Mean attention over the pictures, one after the other; None where a picture is not one square of tokens."""
    trend = next(iter(collected.trends.values())).learned_trend
    if trend is None:
        return None
    grid = most_met(trend)
    sides = [math.isqrt(count) for count in grid]
    if any(side**2 != count for side, count in zip(sides, grid, strict=True)):
        return None
    attention, _ = trend.means[grid]
    relative = attention / attention.mean()
    parts = np.split(relative, np.cumsum(grid)[:-1])
    top = float(relative.max())
    panels = tuple(
        Matrix(f"image {number}", part.reshape(side, side), "column", "row", (), low=0.0, high=top, digits=1)
        for number, (part, side) in enumerate(zip(parts, sides, strict=True), 1)
    )
    alt = f"Mean attention to each cell of each picture's grid; darker is more, up to {top:.1f} times the mean."
    return Chart("heat", "Attention over the pictures", panels, alt)


def accuracy_chart(run: StoredRun, keeps: Sequence[float], *, seed: int) -> Chart:
    """Accuracy by the share kept, a panel a decision; all rankings meet at all tokens and at none."""
    panels = []
    for decision in DECISIONS:
        summaries = {pair: summarise(table, seed=seed) for pair, table in answers(run, keeps, decision).items()}
        lines = []
        for rank in RANKINGS:
            row = [summaries[keep, rank if rank in rankings_of(keep) else "none"] for keep in keeps]
            low, high = (np.asarray(ends) for ends in zip(*((one.accuracy_low, one.accuracy_high) for one in row), strict=True))
            points = np.asarray([one.accuracy for one in row])
            lines.append(Line(RANKING_NAMES[rank], 100 * np.asarray(keeps), points, low, high))
        panels.append(Lines(decision, tuple(lines), "visual tokens kept (%)", "accuracy (points)"))
    return Chart(
        "accuracy", "Accuracy by the share of visual tokens kept", tuple(panels), "One line a ranking; bands: 95 % intervals."
    )


def middle(keeps: Sequence[float]) -> float:
    """The share of those at which tokens are chosen that is nearest to a quarter."""
    return min(keeps, key=lambda keep: abs(keep - 0.25))


def _frequency(pruner: DebiasedPruner, when: str, grid: Grid) -> Floats | None:
    """Float[L]: the share of the calibration prompts in which each index was kept; None where nothing was learned."""
    arrays = {} if pruner.learned is None else pruner.learned.arrays
    return arrays.get(f"{when}/{'-'.join(map(str, grid))}")
