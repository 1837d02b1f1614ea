"""The leaderboard as data: a line a model and method, a cell a task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lad_eval.errors import UnknownNameError
from lad_eval.metrics import Standing

SORTS = ("accuracy", "rstd", "consistency", "passes", "model", "method")
_FIGURES = ("accuracy", "rstd", "consistency")


@dataclass(frozen=True)
class Cell:
    """One method on one task, in points; None where a figure is not defined.

    Attributes:
        samples: None for figures published elsewhere.
        passes: decoder passes a query.
        position_p: of the test of "position does not matter".
        standing: against the best of those that were asked the same under the same setup; None where there is nothing to test.
        setup: dtype, attention implementation and task version, by name.
        mark: letter of what sets this cell apart from others of its column, see `Board.marks`; empty if nothing does.
        run: hash of the run.
    """

    accuracy: float | None
    rstd: float | None
    consistency: float | None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    samples: int | None = None
    permutations: int | None = None
    unparsable: int | None = None
    passes: float | None = None
    position_p: float | None = None
    standing: Standing | None = None
    setup: Mapping[str, str] = field(default_factory=dict)
    mark: str = ""
    run: str | None = None

    @property
    def best(self) -> bool:
        return self.standing is not None and self.standing.best

    @property
    def tied(self) -> bool:
        """Not the best, and not significantly different from it."""
        return self.standing is not None and self.standing.tied


@dataclass(frozen=True)
class Line:
    """A model and a method.

    Attributes:
        model: as the board names it, with whatever tells its runs from others.
        cells: by task.
        reported: published elsewhere.
        name: the model's own name; None: as `model`.
        limit: only the first so many samples of each task were asked; None: all.
        calibrated_on: another task that gave the calibration samples; None: the task's own did.
    """

    model: str
    method: str
    cells: Mapping[str, Cell]
    reported: bool = False
    name: str | None = None
    limit: int | None = None
    calibrated_on: str | None = None

    @property
    def passes(self) -> tuple[float, float] | None:
        """The least and the most passes a query over the tasks; None where unknown."""
        known = [cell.passes for cell in self.cells.values() if cell.passes is not None]
        return (min(known), max(known)) if known else None


@dataclass(frozen=True)
class Board:
    """Tasks are the columns, in order; `marks`: what a letter beside a figure means; `notes`: what a reader should know."""

    tasks: tuple[str, ...]
    lines: tuple[Line, ...]
    marks: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def tested(self) -> bool:
        """Whether any cell was tested against a best one."""
        return any(cell.standing is not None and not cell.best for line in self.lines for cell in line.cells.values())


def check_sort(by: str, tasks: Sequence[str]) -> None:
    """Refuses what `in_order` cannot sort by.

    Raises:
        UnknownNameError: `by` is neither in SORTS nor a task, nor a task with a figure such as `scenes_random_n4:rstd`.
    """
    task, _, figure = by.partition(":")
    if by not in SORTS and not (task in tasks and (figure or "accuracy") in _FIGURES):
        raise UnknownNameError("sort", by, [*SORTS, *tasks, *(f"{task}:{figure}" for task in tasks for figure in _FIGURES)])


def in_order(lines: Sequence[Line], tasks: Sequence[str], by: str) -> list[Line]:
    """The best first; a figure is the mean over the tasks, and a line that lacks tasks stands below those that have more of them.

    Args:
        lines: in the order that decides between equals.
        tasks: of the board.
        by: an entry of SORTS; or a task, by its accuracy, or `task:figure`.
    """
    task, _, figure = by.partition(":")
    columns, what = (list(tasks), by) if by in SORTS else ([task], figure or "accuracy")

    def place(line: Line) -> tuple[int, float, str]:
        if what in ("model", "method"):
            return 0, 0.0, str(getattr(line, what))
        known = [value for name in columns if (value := _value(line.cells.get(name), what)) is not None]
        mean = sum(known) / len(known) if known else math.inf
        better_when_less = what in ("rstd", "passes")
        return len(columns) - len(known), mean if better_when_less or not known else -mean, ""

    return sorted(lines, key=place)


def _value(cell: Cell | None, figure: str) -> float | None:
    value = None if cell is None else getattr(cell, figure)
    return None if value is None else float(value)
