"""The study's figures: attention and choice by token index, attention over the pictures, accuracy by the share kept."""

from __future__ import annotations

import math

import numpy as np

from lad_eval.attention.pruning.debiased import DebiasedPruner
from lad_eval.attention.pruning.trend import KEPT_AFTER, KEPT_BEFORE, Grid, MeansArrays, Trend, positions
from lad_eval.evidence.table import Floats
from lad_eval.report.panels import Chart, HeatMap, LinePlot, Series
from lad_eval.studies.pruning.conditions import DECISIONS, RANKINGS, PruningCondition, rankings_of
from lad_eval.studies.pruning.data import PrunerData, main_grid
from lad_eval.studies.pruning.tables import RANKING_NAMES, share
from lad_eval.studies.tables import accuracy_series


def index_chart(data: PrunerData) -> Chart:
    """Mean attention by token index with the fit, and how often each index was kept before and after."""
    keep = data.middle
    mean, exponential = (data.trends[PruningCondition(keep, kind)] for kind in ("mean", "exp"))
    trend = _trend(mean)
    grid = main_grid(trend)
    frequencies = {
        RANKING_NAMES["none"]: _frequency(mean, KEPT_BEFORE, grid),
        RANKING_NAMES["mean"]: _frequency(mean, KEPT_AFTER, grid),
        RANKING_NAMES["exp"]: _frequency(exponential, KEPT_AFTER, grid),
    }
    index = np.arange(sum(grid), dtype=np.float64)
    series = tuple(Series(name, index, 100 * values) for name, values in frequencies.items() if values is not None)
    highest = max(float(one.y.max()) for one in series)
    panels = (
        _attention_plot("attention", trend, grid),
        LinePlot(f"{share(keep)} kept", series, "visual token", "kept (% of prompts)", top=min(100.0, 1.2 * highest)),
    )
    alt = "Attention to a visual token by its index, with the fitted exponential, and how often each index was kept."
    return Chart("index", f"Attention before layer {data.pruner.layer}, and what is kept, by index", panels, alt)


def layers_chart(data: PrunerData) -> Chart:
    """Mean attention by token index with the fit, one panel per measured layer."""
    trends = {layer: _trend(pruner) for layer, pruner in data.layers.items()}
    panels = tuple(_attention_plot(f"before layer {layer}", trend, main_grid(trend)) for layer, trend in trends.items())
    alt = "Attention to a visual token by its index in each layer, relative to the layer's mean, with the exponential fit."
    return Chart("layers", "Attention by layer and index", panels, alt)


def _attention_plot(title: str, trend: Trend, grid: Grid) -> LinePlot:
    attention, _ = trend.means[grid]
    index = np.arange(len(attention), dtype=np.float64)
    relative = attention / attention.mean()
    fit = trend.exponential
    curve: Floats = fit.mu * np.exp(fit.sigma * positions(len(attention)))
    series = (Series("mean attention", index, relative), Series(f"fit: σ {fit.sigma:.2f}, R² {fit.r2:.2f}", index, curve))
    return LinePlot(title, series, "visual token", "relative to the mean", top=1.1 * float(max(relative.max(), curve.max())))


def heat_chart(data: PrunerData) -> Chart | None:
    """Mean attention over the pictures, one after the other; None where a picture is not one square of tokens."""
    trend = _trend(next(iter(data.trends.values())))
    grid = main_grid(trend)
    sides = [math.isqrt(count) for count in grid]
    if any(side**2 != count for side, count in zip(sides, grid, strict=True)):
        return None
    attention, _ = trend.means[grid]
    relative = attention / attention.mean()
    parts = np.split(relative, np.cumsum(grid)[:-1])
    top = float(relative.max())
    panels = tuple(
        HeatMap(f"image {number}", part.reshape(side, side), "column", "row", (), low=0.0, high=top, digits=1)
        for number, (part, side) in enumerate(zip(parts, sides, strict=True), 1)
    )
    alt = f"Mean attention to each cell of each picture's grid; stronger colours mean more attention, up to {top:.1f} x the mean."
    return Chart("heat", f"Attention over the pictures, before layer {data.pruner.layer}", panels, alt)


def accuracy_chart(data: PrunerData) -> Chart:
    """Accuracy by the share kept, one panel per decision; all rankings coincide at all tokens and at none."""
    panels = []
    for decision in DECISIONS:
        summaries = data.summaries(decision)
        series = []
        for ranking in RANKINGS:
            row = [summaries[PruningCondition(keep, ranking if ranking in rankings_of(keep) else "none")] for keep in data.keeps]
            series.append(accuracy_series(RANKING_NAMES[ranking], [100 * keep for keep in data.keeps], row))
        panels.append(LinePlot(decision, tuple(series), "visual tokens kept (%)", "accuracy (points)"))
    alt = "One line per ranking; bands: 95 % intervals."
    return Chart("accuracy", "Accuracy by the share of visual tokens kept", tuple(panels), alt)


def _trend(pruner: DebiasedPruner) -> Trend:
    trend = pruner.learned_trend
    assert trend is not None  # only calibrated pruners are among the data
    return trend


def _frequency(pruner: DebiasedPruner, kind: MeansArrays, grid: Grid) -> Floats | None:
    """Float[L]: the share of the calibration prompts in which each index was kept; None where nothing was learned."""
    frequency, _ = pruner.kept_frequencies(kind).get(grid, (None, None))
    return frequency
