"""What a study gives: tables of measured cells, charts, and remarks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from lad_eval.evidence import Floats


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
