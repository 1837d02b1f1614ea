"""The first screen of a run: the finding, accuracy by position, and two confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from lad_eval.metrics import can_differ, detectable_in
from lad_eval.report.charts import PositionBars, draw_positions
from lad_eval.report.html.charts import heatmap
from lad_eval.report.html.figures import shares_by_position
from lad_eval.report.html.finding import BASE, RunFinding, finding_of, said
from lad_eval.report.html.load import Material, answers_of
from lad_eval.report.html.measures import recall_table, recalls_of
from lad_eval.report.html.positions import Recall, positions
from lad_eval.report.html.summary import SummaryRow
from lad_eval.report.html.text import clean, position_names
from lad_eval.report.table import Table
from lad_eval.run.folder.files import ResultsError
from lad_eval.run.folder.stored import load_run

NARROW = 350.0
"""Width of the chart on a phone."""


@dataclass(frozen=True)
class ConfusionChart:
    """Right position against answered position for one method, each row in percent."""

    title: str
    colour: str
    chart: Markup


@dataclass(frozen=True)
class Opening:
    """The first screen; charts are None and matrices absent if the run lacks their data."""

    finding: RunFinding
    wide: Markup | None
    narrow: Markup | None
    numbers: Table | None
    matrices: Sequence[ConfusionChart]


def opening_of(material: Material, finding: RunFinding, recalls: Mapping[str, Recall], colours: Mapping[str, str]) -> Opening:
    """The first screen of a run with this finding."""
    shown = [recalls[name] for name in finding.methods if name in recalls]
    matrices = _matrices(material, finding, colours)
    if not shown:
        return Opening(finding, None, None, None, matrices)
    names = " and ".join(one.name for one in shown)
    label = f"Share of right answers by the position of the right image, {names}, with 95 % intervals; the table has the numbers."
    series = [Recall(said(one.name), one.values, one.low, one.high, one.colour) for one in shown]
    chance = 100 / material.candidates
    wide = 640.0 if len(matrices) < 2 else 580.0 if material.candidates <= 6 else 430.0
    return Opening(
        finding,
        positions(series, chance=chance, label=label, width=wide),
        positions(series, chance=chance, label=label, width=NARROW, height=280.0),
        recall_table(shown),
        matrices,
    )


def _matrices(material: Material, finding: RunFinding, colours: Mapping[str, str]) -> list[ConfusionChart]:
    answers = material.answers
    if answers is None:
        return []
    names = position_names(answers.n_candidates)
    side = 46.0 if len(names) <= 5 else max(11.0, min(36.0, 282.0 / len(names)))
    matrices = []
    for method in finding.methods:
        if method not in answers.grids:
            continue
        shares, silent = shares_by_position(answers, method)
        columns = [*names, "none"] if silent else list(names)
        title = "As the model answers" if method == BASE else f"With {said(method)}"
        chart = heatmap(
            shares[:, : len(columns)],
            names,
            columns,
            row_title="right image at",
            column_title="answered position",
            label=f"{title}: of the questions whose right image was at each position, the share answered with each position, in "
            "percent.",
            cell=(side, side),
            diagonal=True,
            colour=colours[method],
        )
        matrices.append(ConfusionChart(title, colours[method], chart))
    return matrices


def marks_note(material: Material, rows: Sequence[SummaryRow]) -> str:
    """What bold and † mean in this run's table, and the smallest detectable difference."""
    if len(rows) < 2:
        return ""
    note = "Bold: the highest accuracy."
    tied = [row.method for row in rows if row.tied]
    answers = material.answers
    if answers is not None and not can_differ(len(answers.sample_id), len(rows)):
        return f"{note} With {len(answers.sample_id)} samples no difference can be significant."
    if not tied:
        return (
            f"{note} All others are significantly lower (exact paired test over samples, Holm, 0.05)."
            if _tested(material)
            else note
        )
    note += " †: not significantly lower (exact paired test over samples, Holm, 0.05)."
    points = float("nan") if answers is None else detectable_in({name: answers.grids[name].correct for name in answers.methods})
    if np.isfinite(points):
        note += (
            f" A true difference of less than {points:.1f} points from the best would probably go undetected with so few samples."
        )
    return note


def _tested(material: Material) -> bool:
    return bool(material.metrics.get("tests", {}).get("accuracy"))


def position_picture(path: Path, out: Path, methods: Sequence[str] | None = None) -> None:
    """Plots a run's recall by position and writes the figure to a file.

    Args:
        path: the run's folder, or a folder above it that holds no other run.
        out: the file: .svg, .png or .pdf.
        methods: in this order; default: those of the run's finding.

    Raises:
        UserError: there is no such run, it lacks a method, or the file cannot be written.
    """
    run = load_run(path)
    for name in methods or ():
        run.recall_of(name)
    finding = finding_of(run.metrics)
    shown = list(methods or (finding.methods if finding else ()))
    recalls = recalls_of(run.metrics, answers_of(run.predictions(), int(run.metrics["candidates"])))
    if missing := [name for name in shown if name not in recalls] or (not shown and ["any method"]):
        raise ResultsError(f"{run.path} has no recall by position for {', '.join(missing)}.")
    alike = finding is not None and set(shown) == set(finding.methods)
    title = finding.title if finding is not None and alike else "Recall by the position of the right image"
    samples, orders = run.metrics.get("counts", {}).get("samples"), run.metrics.get("counts", {}).get("permutations")
    size = f"{samples} samples x {orders} orders, 95 % intervals"
    bars = [PositionBars(one.name, one.values, one.low, one.high) for one in map(recalls.__getitem__, shown)]
    draw_positions(bars, title, f"{clean(run.metrics['model'])} · {clean(run.metrics['task'])} · {size}", out)
