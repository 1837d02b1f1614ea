"""The leaderboard as data: one line per model and method, one cell per task."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lad_eval.errors import UnknownNameError, UserError
from lad_eval.metrics import Significance
from lad_eval.report.forms import comma_separated, html, latex, markdown, terminal
from lad_eval.report.table import TIED, Content, Table, figure

SORTS = ("accuracy", "rstd", "consistency", "passes", "model", "method")
_FIGURES = ("accuracy", "rstd", "consistency")


@dataclass(frozen=True)
class TaskFigures:
    """One method on one task, in points; None where a figure is not defined.

    Attributes:
        samples: None for results published elsewhere.
        passes: decoder passes per query.
        position_p: of the test of "position does not matter".
        significance: against the best of those with the same questions and setup; None: nothing to test.
        setup: dtype, attention implementation and task version, by name.
        mark: letter of what distinguishes this cell from others of its column, see `Board.marks`; empty if nothing does.
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
    significance: Significance | None = None
    setup: Mapping[str, str] = field(default_factory=dict)
    mark: str = ""
    run: str | None = None

    @property
    def best(self) -> bool:
        return self.significance is not None and self.significance.best

    @property
    def tied(self) -> bool:
        """Not the best, and not significantly different from it."""
        return self.significance is not None and self.significance.tied


@dataclass(frozen=True)
class BoardLine:
    """A model and a method.

    Attributes:
        model: its name on the board, with what distinguishes its runs from others.
        cells: by task.
        reported: published elsewhere.
        name: the model's own name; None: as `model`.
        limit: number of samples of each task that were run, from the first; None: all.
        calibrated_on: another task that gave the calibration samples; None: the task's own did.
    """

    model: str
    method: str
    cells: Mapping[str, TaskFigures]
    reported: bool = False
    name: str | None = None
    limit: int | None = None
    calibrated_on: str | None = None

    @property
    def passes(self) -> tuple[float, float] | None:
        """Smallest and largest number of passes per query over the tasks; None if unknown."""
        known = [cell.passes for cell in self.cells.values() if cell.passes is not None]
        return (min(known), max(known)) if known else None


@dataclass(frozen=True)
class Board:
    """Tasks are the columns, in order; `marks`: what a letter after a number means; `notes`: what a reader should know."""

    tasks: tuple[str, ...]
    lines: tuple[BoardLine, ...]
    marks: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def tested(self) -> bool:
        """Whether any cell was tested against the best one."""
        return any(cell.significance is not None and not cell.best for line in self.lines for cell in line.cells.values())


def check_sort(by: str, tasks: Sequence[str]) -> None:
    """Refuses a key that `in_order` cannot sort by.

    Raises:
        UnknownNameError: `by` is neither in SORTS nor a task, nor a task with a figure such as `scenes_random_n4:rstd`.
    """
    task, _, figure = by.partition(":")
    if by not in SORTS and not (task in tasks and (figure or "accuracy") in _FIGURES):
        raise UnknownNameError("sort", by, [*SORTS, *tasks, *(f"{task}:{figure}" for task in tasks for figure in _FIGURES)])


def in_order(lines: Sequence[BoardLine], tasks: Sequence[str], by: str) -> list[BoardLine]:
    """The lines sorted, best first, by the mean over the tasks; lines with fewer tasks come after those with more.

    Args:
        lines: in the order that breaks ties.
        tasks: of the board.
        by: an entry of SORTS; or a task, by its accuracy, or `task:figure`.
    """
    task, _, figure = by.partition(":")
    columns, what = (list(tasks), by) if by in SORTS else ([task], figure or "accuracy")

    def place(line: BoardLine) -> tuple[int, float, str]:
        if what in ("model", "method"):
            return 0, 0.0, str(getattr(line, what))
        known = [value for name in columns if (value := _value(line.cells.get(name), what)) is not None]
        mean = sum(known) / len(known) if known else math.inf
        better_when_less = what in ("rstd", "passes")
        return len(columns) - len(known), mean if better_when_less or not known else -mean, ""

    return sorted(lines, key=place)


def _value(cell: TaskFigures | None, figure: str) -> float | None:
    value = None if cell is None else getattr(cell, figure)
    return None if value is None else float(value)


FORMATS = ("rich", "md", "latex", "html", "csv", "json")
_SPANS = ("accuracy", "accuracy_low", "accuracy_high", "rstd", "consistency")
_KEYS = ("model", "label", "limit", "calibrated_on", "method", "reported")
_CSV = (*_SPANS, "position_p", "unparsable", "passes", "samples", "permutations")


def render_board(board: Board, form: str) -> str:
    """The board in one of FORMATS; "rich" without colours, 140 columns wide.

    Raises:
        UserError: no such format.
    """
    forms: dict[str, Callable[[Board], str]] = {
        "rich": lambda b: terminal(table_of(b)).plain,
        "md": lambda b: f"{_WRITTEN}\n\n{markdown(table_of(b))}",
        "latex": lambda b: latex(table_of(b)),
        "html": lambda b: str(html(table_of(b))),
        "csv": lambda b: comma_separated(_machine_table(b)),
        "json": _json,
    }
    if form not in forms:
        raise UserError(f"Unknown format {form!r}. Choose from {', '.join(FORMATS)}.")
    return forms[form](board)


_WRITTEN = "<!-- Written by `lad-eval leaderboard --format md` from the runs; do not edit. -->"


def table_of(board: Board) -> Table:
    """One row per model and method, three columns per task; the notes say what the marks mean."""
    rows = [_row(board, line) for line in board.lines if not line.reported]
    reported = [_row(board, line) for line in board.lines if line.reported]
    columns = ("Model", "Method", "Passes", *("Acc", "RStd", "Cons") * len(board.tasks))
    groups = [("", 3), *((task, 3) for task in board.tasks)]
    return Table("", columns, rows, _legend(board), reported, groups)


def _row(board: Board, line: BoardLine) -> list[Content]:
    cells = [line.cells.get(task) for task in board.tasks]
    figures = [figures for cell in cells for figures in ((None, None, None) if cell is None else _figures(cell))]
    return [line.model, line.method, _passes(line), *figures]


def _figures(cell: TaskFigures) -> tuple[Content, Content, Content]:
    mark = f" [{cell.mark}]" if cell.mark else ""
    return replace(figure(cell.accuracy, best=cell.best, tied=cell.tied), mark=mark), cell.rstd, cell.consistency


def _passes(line: BoardLine) -> Content:
    if line.passes is None:
        return None
    least, most = line.passes
    return f"{least:.3g}" if least == most else f"{least:.3g}–{most:.3g}"


def _machine_table(board: Board) -> Table:
    """One row per model and method; the figures of a task are columns named `task.figure`."""
    figures = (*_CSV, "best", "tied", "p_holm")
    rows = []
    for line in board.lines:
        documents = [{} if (cell := line.cells.get(task)) is None else _document(cell) for task in board.tasks]
        rows.append([*_who(line).values(), *(document.get(name) for document in documents for name in figures)])
    return Table("", [*_KEYS, *(f"{task}.{name}" for task in board.tasks for name in figures)], rows)


def _json(board: Board) -> str:
    """A list with one object per line: the model and method, and `tasks`: {task: figures in points}."""
    lines = [
        {**_who(line), "tasks": {task: _document(line.cells[task]) for task in board.tasks if task in line.cells}}
        for line in board.lines
    ]
    return json.dumps(lines, indent=2, allow_nan=False, ensure_ascii=False)


def _who(line: BoardLine) -> dict[str, Any]:
    """Model and method of a line; `label` is the model's name in tables."""
    values = (line.name or line.model, line.model, line.limit, line.calibrated_on, line.method, line.reported)
    return dict(zip(_KEYS, values, strict=True))


def _document(cell: TaskFigures) -> dict[str, Any]:
    significance = cell.significance
    return {
        **{name: getattr(cell, name) for name in _CSV},
        "best": cell.best,
        "tied": cell.tied,
        "p_holm": None if significance is None or significance.best else significance.p_holm,
        "setup": dict(cell.setup),
        "run": cell.run,
    }


def _legend(board: Board) -> list[str]:
    notes = []
    if board.tested:
        notes += [
            "Bold: the best on the same questions.",
            f"{TIED}: not significantly less accurate than it (exact paired test over samples, Holm over the column, 0.05).",
        ]
    if any(line.reported for line in board.lines):
        notes.append("(reported): published elsewhere, on other samples; not measured here and not tested.")
    notes += [f"[{letter}]: {text}. Rows of different marks are not comparable." for letter, text in board.marks.items()]
    for line in board.lines:
        if lost := sum(cell.unparsable or 0 for cell in line.cells.values()):
            replies = sum((cell.samples or 0) * (cell.permutations or 0) for cell in line.cells.values())
            notes.append(f"{line.model}, {line.method}: {lost} of {replies} replies had no answer and count as wrong.")
    return [" ".join(note.split()) for note in [*notes, *board.notes]]
