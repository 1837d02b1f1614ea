"""What a study gives: tables, charts, and remarks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from lad_eval.evidence.table import Floats
from lad_eval.metrics import Predictions, Summary, can_differ, detectable_in, significance, summarise
from lad_eval.report.forms import latex, markdown, markdown_text
from lad_eval.report.table import Cell, Table, figure


@dataclass(frozen=True)
class Matrix:
    """A heat map, Float[rows, columns]: `low` and `high` are the ends of the colour scale; without ticks no cell is numbered."""

    title: str
    values: Floats
    x_label: str
    y_label: str
    ticks: tuple[str, ...]
    low: float = 0.0
    high: float = 100.0
    digits: int = 0


class Line(NamedTuple):
    """A series, Float[points] each; `low` and `high` bound its 95 % intervals."""

    name: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None


@dataclass(frozen=True)
class Lines:
    """Series over one axis up to `top`; `chance` is a level to compare with."""

    title: str
    lines: tuple[Line, ...]
    x_label: str
    y_label: str
    log_x: bool = False
    chance: tuple[Floats, Floats] | None = None
    top: float = 100.0


@dataclass(frozen=True)
class Cloud:
    """A density of points in the unit square, Float[n] each."""

    title: str
    x: Floats
    y: Floats
    x_label: str
    y_label: str


Panel = Matrix | Lines | Cloud


@dataclass(frozen=True)
class Chart:
    """Panels side by side; `alt` says in words what is to be seen."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    alt: str


@dataclass(frozen=True)
class Sheet:
    """A finished study.

    Attributes:
        name: "table4", "figure6".
        missing: what could not be shown, and what it takes; never left out silently.
    """

    name: str
    title: str
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    remarks: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name for readers: "Table 4"."""
        return re.sub(r"(?<=[a-z])(?=\d)", " ", self.name).capitalize()

    def markdown(self) -> str:
        """The whole sheet; charts are linked as `figures/<name>.svg`."""
        parts = [f"## {self.label}: {markdown_text(self.title)}", *map(markdown, self.tables)]
        parts += [f"![{chart.title}. {chart.alt}](figures/{chart.name}.svg)" for chart in self.charts]
        parts += map(markdown_text, self.remarks)
        parts += [f"Not shown: {markdown_text(line)}" for line in self.missing]
        return "\n\n".join(parts)

    def latex(self) -> str:
        """The tables, ready to be input."""
        return "\n\n".join(map(latex, self.tables))


TIE_NOTE = (
    "Bold: the best of the column. †: not significantly different from the best "
    "(exact paired test over samples, Holm's correction over the column, 5 %)."
)


def accuracy(summary: Summary) -> Cell:
    """Accuracy in points with its 95 % cluster bootstrap interval."""
    return figure(summary.accuracy, low=summary.accuracy_low, high=summary.accuracy_high)


def measured(predictions: Mapping[str, Predictions], *, seed: int) -> dict[str, tuple[Summary, Cell]]:
    """Summary and accuracy of every method, the best and what ties with it marked; all on the same samples."""
    tested = significance({name: table.grid.correct for name, table in predictions.items()})
    summaries = {name: summarise(table, seed=seed) for name, table in predictions.items()}
    return {
        name: (summary, replace(accuracy(summary), tied=tested[name].tied, best=tested[name].best))
        for name, summary in summaries.items()
    }


def mark_notes(columns: Sequence[Mapping[str, Predictions]]) -> tuple[str, ...]:
    """What a reader must know of the marks of a table: how they are tested, and what so few samples could not have shown.

    Args:
        columns: the answers that each column was `measured` from.
    """
    notes = [TIE_NOTE]
    fewest, rows = min((len(table.grid.sample_id), len(column)) for column in columns for table in column.values())
    if not can_differ(fewest, rows):
        return (*notes, f"With {fewest} samples no difference can be significant: † says nothing here.")
    missed = [detectable_in({name: table.grid.correct for name, table in column.items()}) for column in columns]
    if any(np.isfinite(missed)):
        points_missed = " / ".join(f"{points:.1f}" if np.isfinite(points) else "–" for points in missed)
        notes.append(
            f"By column, the greatest detectable difference of a row with † from the best: {points_missed} points "
            "(found with chance 0.8 at 5 %, before correction); a smaller true difference would likely be missed."
        )
    return tuple(notes)
