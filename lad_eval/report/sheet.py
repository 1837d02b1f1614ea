"""What a study gives: tables of measured cells, charts, and remarks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lad_eval.evidence.table import Floats
from lad_eval.metrics import Predictions, Summary, can_differ, detectable_in, standings, summarise


class Measured(NamedTuple):
    """A figure with its 95 % interval; `tied`: not significantly different from the best of its column."""

    value: float
    low: float | None = None
    high: float | None = None
    tied: bool = False
    best: bool = False


class PValue(NamedTuple):
    """The p-value of a test, 0 to 1."""

    value: float


Cell = str | int | float | Measured | PValue | None


@dataclass(frozen=True)
class Table:
    """Rows of cells under column names; figures in points unless the column says otherwise.

    Attributes:
        digits: after the point.
        reported: rows of figures published elsewhere, shown below a rule and never mixed into ours.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    digits: int = 1
    reported: tuple[tuple[Cell, ...], ...] = ()

    def is_text(self, column: int) -> bool:
        """Whether a column holds words, not figures."""
        cells = [row[column] for row in self.rows]
        return any(isinstance(cell, str) and any(letter.isalpha() for letter in cell) for cell in cells)


@dataclass(frozen=True)
class Matrix:
    """A heat map, Float[rows, columns]: `low` and `high` are the ends of the colour scale."""

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
    """Series over one axis; `chance` is a level to compare with."""

    title: str
    lines: tuple[Line, ...]
    x_label: str
    y_label: str
    log_x: bool = False
    chance: tuple[Floats, Floats] | None = None


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


TIE_NOTE = (
    "Bold: the best of the column. †: not significantly different from the best "
    "(exact paired test over samples, Holm's correction over the column, 5 %)."
)


def accuracy(found: Summary) -> Measured:
    """Accuracy in points with its 95 % cluster bootstrap interval."""
    return Measured(found.accuracy, found.accuracy_low, found.accuracy_high)


def measured(predictions: Mapping[str, Predictions], *, seed: int) -> dict[str, tuple[Summary, Measured]]:
    """Summary and accuracy of every method, the best and what ties with it marked; all on the same samples."""
    standing = standings({name: table.grid.correct for name, table in predictions.items()})
    summaries = {name: summarise(table, seed=seed) for name, table in predictions.items()}
    return {
        name: (found, accuracy(found)._replace(tied=standing[name].tied, best=standing[name].best))
        for name, found in summaries.items()
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
        told = " / ".join(f"{points:.1f}" if np.isfinite(points) else "–" for points in missed)
        notes.append(
            f"By column, the greatest detectable difference of a row with † from the best: {told} points "
            "(found with chance 0.8 at 5 %, before correction); a smaller true difference would likely be missed."
        )
    return tuple(notes)
