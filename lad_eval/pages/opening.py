"""The first screen of a run: the finding, accuracy by position, and the two matrices that explain it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from lad_eval.metrics import can_differ, detectable_in
from lad_eval.pages.charts import Recall, heatmap, positions
from lad_eval.pages.figures import shares_by_position
from lad_eval.pages.finding import BASE, Finding, said
from lad_eval.pages.load import Material
from lad_eval.pages.names import position_names
from lad_eval.pages.recalls import recall_table
from lad_eval.pages.summary import SummaryRow
from lad_eval.pages.tables import Table

NARROW = 350.0
"""Width of the chart on a phone."""


@dataclass(frozen=True)
class Matrix:
    """Right position against answered position of one method, a share of each row in percent."""

    title: str
    colour: str
    chart: Markup


@dataclass(frozen=True)
class Opening:
    """What the page shows first; charts are None and matrices absent where the run lacks what they are made of."""

    finding: Finding
    wide: Markup | None
    narrow: Markup | None
    numbers: Table | None
    matrices: Sequence[Matrix]


def opening_of(material: Material, finding: Finding, recalls: Mapping[str, Recall], colours: Mapping[str, str]) -> Opening:
    """The first screen of a run with this finding."""
    shown = [recalls[name] for name in finding.methods if name in recalls]
    matrices = _matrices(material, finding, colours)
    if not shown:
        return Opening(finding, None, None, None, matrices)
    told = " and ".join(one.name for one in shown)
    label = f"Share of right answers by the position of the right image, {told}, with 95 % intervals; the table has the numbers."
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


def _matrices(material: Material, finding: Finding, colours: Mapping[str, str]) -> list[Matrix]:
    answers = material.answers
    if answers is None:
        return []
    names = position_names(answers.n_candidates)
    side = 46.0 if len(names) <= 5 else max(11.0, min(36.0, 282.0 / len(names)))
    found = []
    for method in finding.methods:
        if method not in answers.position:
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
        found.append(Matrix(title, colours[method], chart))
    return found


def marks_note(material: Material, rows: Sequence[SummaryRow]) -> str:
    """What bold and † mean in this run's table, and what so few samples could not have shown."""
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
    points = float("nan") if answers is None else detectable_in({name: answers.correct(name) for name in answers.methods})
    if np.isfinite(points):
        note += f" A true difference of less than {points:.1f} points from the best would probably not show with so few samples."
    return note


def _tested(material: Material) -> bool:
    return bool(material.metrics.get("tests", {}).get("accuracy"))
