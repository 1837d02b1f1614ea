"""The study's figures: positions of the answers, and attention between images."""

from __future__ import annotations

import numpy as np

from lad_eval.evidence.table import Floats
from lad_eval.report.panels import Chart, HeatMap, LinePlot, Series
from lad_eval.run.folder.files import slug
from lad_eval.studies.capl.data import TaskData, positions_chosen
from lad_eval.studies.capl.tables import between_matrices, directions, shown_layers


def positions_chart(data: TaskData) -> Chart:
    """Share of the answers at each position: one panel per model, one line per attention."""
    n = data.candidates
    x = np.arange(1, n + 1, dtype=np.float64)
    panels, highest = [], 100 / n
    for weights in data.conditions.weights:
        rows = [row for row in data.predictions if row.weights == weights]
        # The panel names the model, so that equal attention has equal colours in both.
        names = [data.conditions.row("base", row.method).label for row in rows]
        shares = [np.asarray(positions_chosen(data.predictions[row])) for row in rows]
        series = [Series(name, x, share) for name, share in zip(names, shares, strict=True)]
        highest = max(highest, *(float(line.y.max()) for line in series))
        panels.append((f"{weights} weights", tuple(series)))
    chance = (x, np.full(n, 100 / n))
    drawn = tuple(
        LinePlot(title, series, "position", "answers (%)", chance=chance, top=min(100.0, 1.15 * highest))
        for title, series in panels
    )
    alt = "Share of the answers that name each position; dotted: equal shares, which is chance."
    return Chart(f"positions-{slug(data.task)}", f"Positions of the answers on {data.task}", drawn, alt)


def direction_chart(data: TaskData) -> Chart:
    """Attention to earlier and to later images by layer."""
    matrices = between_matrices(data)
    panels = []
    for place, title in ((1, "to earlier images"), (2, "to later images")):
        series = []
        for name, by_layer in matrices.items():
            values = np.asarray([directions(by_layer[layer])[place] for layer in sorted(by_layer)])
            series.append(Series(name, np.asarray(sorted(by_layer), dtype=np.float64), values))
        top = max(1.0, 1.15 * max(float(line.y.max()) for line in series))
        panels.append(LinePlot(title, tuple(series), "layer", "attention of image tokens (%)", top=top))
    alt = "Attention of an image's tokens to earlier and to later images, by layer."
    return Chart("between-layers", "Attention between images by layer", tuple(panels), alt)


def between_charts(data: TaskData) -> tuple[Chart, ...]:
    """From image to image, one panel per layer: one chart of each model and attention, on one scale."""
    matrices = between_matrices(data)
    top = max(_highest_between(matrix) for by_layer in matrices.values() for matrix in by_layer.values())
    layers = sorted(next(iter(matrices.values())))
    fused = layers[:: data.conditions.fused.every]
    ticks = tuple(str(image + 1) for image in range(data.candidates))
    charts = []
    for name, by_layer in matrices.items():
        panels = tuple(
            HeatMap(
                f"layer {layer}{_mark(name, layer in fused)}",
                by_layer[layer],
                "to image",
                "from image",
                ticks,
                high=top,
                digits=0,
            )
            for layer in shown_layers(layers, fused)
        )
        alt = f"Points of the attention of each image's tokens (rows) to each image (columns); the scale ends at {top:.0f}."
        charts.append(Chart(f"between-{slug(name)}", f"Attention between images, {name}", panels, alt))
    return tuple(charts)


def _mark(name: str, is_fused: bool) -> str:
    return " (fused)" if is_fused and name.endswith("fused") else ""


def _highest_between(matrix: Floats) -> float:
    """The highest share that goes to another image: the scale, since an image's share of its own tokens is far above it."""
    return float(matrix[~np.eye(len(matrix), dtype=bool)].max())
