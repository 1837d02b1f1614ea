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
    """One figure, or words.

    Attributes:
        value: as machines read it: words, a number that is not rounded, or None.
        text: as people read it, without marks; a line break shows in a terminal only.
        low: end of the value's 95 % interval, as is `high`; None where there is none.
        interval: as people read it, "" where there is none.
        best: the best of those that it stands with.
        tied: not the best, and not significantly different from it.
        mark: stands behind the figure, such as " [a]".
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
"""What a row may hold."""


def number(value: float | None, digits: int = 1) -> str:
    """A number for people; a dash where it is unknown or not finite."""
    return EMPTY if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """`[98.3, 99.6]`; "" where an end is unknown."""
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
    """A number with so many digits after the point, and its 95 % interval if it has one."""
    return Cell(value, number(value, digits), low, high, interval(low, high, digits), best, tied)


def p_value(value: float | None) -> Cell:
    """The p-value of a test, 0 to 1."""
    return Cell(value, "< 0.001" if value is not None and value < 0.001 else number(value, 3))


@dataclass(frozen=True)
class Table:
    """Rows of cells under column names. Plain values may stand for cells: a float shows one digit after the point, None a dash.

    Attributes:
        columns: a terminal breaks a name at its line breaks and soft hyphens; other forms show it on one line.
        notes: what a reader should know, below the table, a paragraph each.
        reported: rows of figures published elsewhere, below a rule and never mixed into ours.
        groups: (name, number of columns) of columns that stand together, from the left; columns of one group are not parted where
            a terminal is too narrow for all, and the first group is repeated with the others.
        fold: the column whose words are folded where a terminal is too narrow.
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
        """Whether a column holds words, which are aligned to the left, not figures."""
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
"""With fewer, resampling knows so few tables that its intervals are far too narrow or a point."""


def interval_note(samples: int, ends: Sequence[tuple[float | None, float | None]]) -> str | None:
    """What a reader must know of intervals that say little; None where they say what they should.

    Args:
        samples: the fewest that a row of the table was measured on.
        ends: lower and upper ends of the table's intervals.
    """
    if samples < FEWEST_SAMPLES:
        return f"{samples} sample{'s' if samples > 1 else ''}: the intervals say little; run more samples."
    if ends and all(low == high for low, high in ends):
        return "Every interval is a point: samples that all agree show no spread, which does not make a figure exact."
    return None
