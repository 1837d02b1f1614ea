"""The study's figures: the gap by layer, histograms of scores, t-SNE of both modalities."""

from __future__ import annotations

import numpy as np

from lad_eval.attention.keys import STAGES, Stage
from lad_eval.report.panels import Chart, LinePlot, Points, ScatterPlot, Series
from lad_eval.studies.key_space.collect import Collected
from lad_eval.studies.key_space.measure import Gap
from lad_eval.studies.key_space.measurements import Measured
from lad_eval.studies.key_space.tables import STAGE_NAMES


def gap_chart(collected: Collected) -> Chart:
    """MMD^2 by layer, a panel for each stage; halves of one modality of the model for comparison."""
    panels = []
    for stage in STAGES:
        lines = []
        for model in collected.models:
            gaps = _gaps(model, stage)
            lines.append(_line(model.weights, gaps, [gap.mmd2 for gap in gaps]))
        gaps = _gaps(collected.models[0], stage)
        lines += [
            _line("visual halves", gaps, [gap.image.mmd2.mean for gap in gaps]),
            _line("text halves", gaps, [gap.text.mmd2.mean for gap in gaps]),
        ]
        if gaps:
            top = 1.15 * max(float(line.y.max()) for line in lines if len(line.y))
            panels.append(LinePlot(STAGE_NAMES[stage], tuple(lines), "decoder layer", "MMD²", top=max(top, 1e-3)))
    return Chart(
        "gap",
        "The gap by layer",
        tuple(panels),
        "MMD² of visual against text keys, of the model and of random weights; halves of one modality of the model lie at 0.",
    )


def _gaps(model: Measured, stage: Stage) -> list[Gap]:
    return [gap for (_, at), gap in model.gaps.items() if at == stage]


def _line(name: str, gaps: list[Gap], values: list[float]) -> Series:
    return Series(name, np.asarray([float(gap.layer) for gap in gaps]), np.asarray(values).clip(min=0))


def score_charts(collected: Collected) -> tuple[Chart, ...]:
    """Histograms of the last row's scores, a panel for each layer; one chart for the model, one for its control."""
    charts = []
    for model in collected.models:
        panels = []
        for layer, one in model.histograms.items():
            centres = np.asarray(one.centres)
            lines = (Series("visual", centres, np.asarray(one.visual)), Series("text", centres, np.asarray(one.text)))
            top = 1.1 * max(*one.visual, *one.text)
            panels.append(LinePlot(f"layer {layer}, {model.weights}", lines, "score (q·k, scaled)", "tokens (%)", top=top))
        charts.append(
            Chart(
                f"scores-{model.weights.replace(' ', '-')}",
                f"Scores of the last token with keys, {model.weights}",
                tuple(panels),
                "Shares of visual and of text tokens by their pre-softmax score, averaged over heads; the ends are clipped.",
            )
        )
    return tuple(charts)


def map_charts(collected: Collected) -> tuple[Chart, ...]:
    """t-SNE of both modalities, a panel for each layer; one chart for the model, one for its control."""
    charts = []
    for model in collected.models:
        panels = []
        for one in model.maps:
            points, visual = np.asarray(one.points), np.asarray(one.visual)
            groups = tuple(Points(name, *points[members].T) for name, members in (("visual", visual), ("text", ~visual)))
            panels.append(ScatterPlot(f"layer {one.layer}, {model.weights}", groups))
        if panels:
            charts.append(
                Chart(
                    f"map-{model.weights.replace(' ', '-')}",
                    f"t-SNE of keys {STAGE_NAMES[model.maps[0].stage]}, {model.weights}",
                    tuple(panels),
                    "Points are tokens. t-SNE shows groups; neither the distances between groups nor their sizes mean anything.",
                )
            )
    return tuple(charts)
