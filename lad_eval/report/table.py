"""A table as a value: cells under column names, with their marks; `report.forms` renders it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lad_eval.terminal import visible

EMPTY = "–"
TIED = "†"
SOFT_HYPHEN = "\N{SOFT HYPHEN}"

Value = str | int | float | None


@dataclass(frozen=True)
class Cell:
    """One number, or text.

    Attributes:
        value: for machines: text, an unrounded number, or None.
        text: for people, without marks; a line break is kept in a terminal only.
        low: lower end of the value's 95 % interval, and `high` its upper end; None if there is none.
        interval: for people, "" if there is none.
        best: whether it is the best of those it is compared with.
        tied: whether it is not the best, but not significantly different from it.
        mark: follows the number, such as " [a]".
    """

    value: Value
    text: str
    low: float | None = None
    high: float | None = None
    interval: str = ""
    best: bool = False
    tied: bool = False
    mark: str = ""


Content = Cell | Value
"""What a row may contain."""


def number(value: float | None, digits: int = 1) -> str:
    """A number as text; a dash if it is unknown or not finite."""
    return EMPTY if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """`[98.3, 99.6]`; "" if an end is unknown."""
    return "" if low is None or high is None else f"[{number(low, digits)}, {number(high, digits)}]"


def figure(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    digits: int = 1,
    best: bool = False,
    tied: bool = False,
) -> Cell:
    """A number with this many decimals, and its 95 % interval if it has one."""
    return Cell(value, number(value, digits), low, high, interval(low, high, digits), best, tied)


def p_value(value: float | None) -> Cell:
    """The p-value of a test, 0 to 1."""
    return Cell(value, "< 0.001" if value is not None and value < 0.001 else number(value, 3))


@dataclass(frozen=True)
class Table:
    """Rows of cells under column names. Plain values are allowed as cells: a float is shown with one decimal, None as a dash.

    Attributes:
        columns: names; a terminal breaks them at line breaks and soft hyphens, other formats show them on one line.
        notes: paragraphs below the table.
        reported: rows of figures published elsewhere, below a rule.
        groups: (name, number of columns) of columns that belong together, from the left; columns of one group are not separated
            if a terminal is too narrow for all, and the first group is repeated with the others.
        fold: the column whose text is wrapped if a terminal is too narrow.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Content]]
    notes: Sequence[str] = ()
    reported: Sequence[Sequence[Content]] = ()
    groups: Sequence[tuple[str, int]] = ()
    fold: int = 0

    @cached_property
    def cells(self) -> list[list[Cell]]:
        """All rows, those of `reported` last."""
        return [[_cell(value) for value in row] for row in (*self.rows, *self.reported)]

    @cached_property
    def names(self) -> list[str]:
        """The columns' names on one line each."""
        return [" ".join(name.replace(SOFT_HYPHEN, "").split()) for name in self.columns]

    @cached_property
    def left(self) -> list[bool]:
        """Whether a column holds text, which is left-aligned, rather than numbers."""
        ours = self.cells[: len(self.rows)]
        return [any(_is_words(row[column]) for row in ours) for column in range(len(self.columns))]

    @property
    def spans(self) -> list[tuple[str, range]]:
        """The groups with the indices of their columns."""
        groups = self.groups or [("", len(self.columns))]
        ends = [sum(count for _, count in groups[: place + 1]) for place in range(len(groups))]
        return [(name, range(end - count, end)) for (name, count), end in zip(groups, ends, strict=True)]


def _cell(value: Content) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, str):
        return Cell(value, visible(value))
    return figure(value) if isinstance(value, float) else Cell(value, EMPTY if value is None else str(value))


def _is_words(cell: Cell) -> bool:
    return isinstance(cell.value, str) and any(letter.isalpha() for letter in cell.value)


FEWEST_SAMPLES = 5
"""With fewer, the bootstrap has so few distinct resamples that its intervals are far too narrow or a point."""


def interval_note(samples: int, ends: Sequence[tuple[float | None, float | None]]) -> str | None:
    """Note on uninformative intervals; None if they are informative.

    Args:
        samples: the smallest number of samples of a row of the table.
        ends: lower and upper ends of the table's intervals.
    """
    if samples < FEWEST_SAMPLES:
        return f"{samples} sample{'s' if samples > 1 else ''}: the intervals mean little; run more samples."
    if ends and all(low == high for low, high in ends):
        return "Every interval is a point: samples that all agree show no spread, which does not make a result exact."
    return None
