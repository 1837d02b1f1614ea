"""The leaderboard as data: a line a model and method, a cell a task."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from lad_eval.errors import UnknownNameError, UserError
from lad_eval.metrics import Standing
from lad_eval.report.render import latex_text
from lad_eval.terminal import plain_cell, visible

if TYPE_CHECKING:
    from rich.text import Text


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


FORMATS = ("rich", "md", "latex", "html", "csv", "json")
COLUMNS = ("Acc", "RStd", "Cons")
TIED = "†"
_EMPTY = "–"
_SPANS = ("accuracy", "accuracy_low", "accuracy_high", "rstd", "consistency")
_KEYS = ("model", "label", "limit", "calibrated_on", "method", "reported")
_CSV = (*_SPANS, "position_p", "unparsable", "passes", "samples", "permutations")


def render_board(board: Board, form: str) -> str:
    """The board in one of FORMATS; "rich" without colours, 140 columns wide.

    Raises:
        UserError: no such format.
    """
    forms: dict[str, Callable[[Board], str]] = {
        "rich": lambda b: rich_board(b, 140).plain,
        "md": _markdown,
        "latex": _latex,
        "html": _html,
        "csv": _csv_of,
        "json": _json,
    }
    if form not in forms:
        raise UserError(f"Unknown format {form!r}. Choose from {', '.join(FORMATS)}.")
    return forms[form](board)


def rich_board(board: Board, width: int) -> Text:
    """The board for a terminal of so many columns: as many tasks side by side as fit, the best figures bold."""
    from rich.text import Text

    heads = [(visible(line.model), visible(line.method), _passes(line)) for line in board.lines]
    names = [max(len(head[i]) for head in [("Model", "Method", "Passes"), *heads]) for i in range(3)]
    groups = {task: _widths(board, task) for task in board.tasks}
    text = Text()
    for tasks in _chunks(groups, width - sum(names) - 4):
        spans = [max(sum(groups[task]) + 4, len(task)) for task in tasks]
        left = " " * (sum(names) + 4)
        text.append(left + "".join(f"  {task:<{span}}" for task, span in zip(tasks, spans, strict=True)).rstrip() + "\n", "bold")
        text.append(f"{'Model':<{names[0]}}  {'Method':<{names[1]}}  {'Passes':>{names[2]}}")
        for task, span in zip(tasks, spans, strict=True):
            text.append("  " + "  ".join(f"{c:>{w}}" for c, w in zip(COLUMNS, groups[task], strict=True)).ljust(span))
        text.append("\n" + "─" * (sum(names) + 4 + sum(spans) + 2 * len(spans)) + "\n")
        for line, head in zip(board.lines, heads, strict=True):
            text.append(f"{head[0]:<{names[0]}}  {head[1]:<{names[1]}}  {head[2]:>{names[2]}}")
            for task, span in zip(tasks, spans, strict=True):
                cell = line.cells.get(task)
                figures = zip(_figures(cell), groups[task], strict=True)
                block = "  ".join(f"{figure:>{w}}" for figure, w in figures).ljust(span)
                text.append("  ")
                text.append(block, "bold" if cell is not None and cell.best else "dim" if line.reported else "")
            text.append("\n")
        text.append("\n")
    for note in _legend(board):
        text.append(f"{visible(note)}\n")
    text.rstrip()
    return text


def _widths(board: Board, task: str) -> list[int]:
    cells = [_figures(line.cells.get(task)) for line in board.lines]
    return [max(len(figures[i]) for figures in [COLUMNS, *cells]) for i in range(3)]


def _chunks(groups: dict[str, list[int]], width: int) -> list[list[str]]:
    """Tasks in blocks that fit a width; at least one each."""
    blocks: list[list[str]] = []
    room = 0
    for task, widths in groups.items():
        needed = max(sum(widths) + 4, len(task)) + 2
        if not blocks or needed > room:
            blocks.append([])
            room = width
        blocks[-1].append(task)
        room -= needed
    return blocks


def _markdown(board: Board) -> str:
    head = ["Model", "Method", "Passes"]
    for task in board.tasks:
        head += [f"{_md(task)}<br>{COLUMNS[0]}", *(f"<br>{name}" for name in COLUMNS[1:])]
    rows = [_row(head), _row([":--", ":--", *["--:"] * (len(head) - 2)])]
    for line in board.lines:
        cells = [_md(line.model), _md(line.method), _passes(line)]
        for task in board.tasks:
            cell = line.cells.get(task)
            accuracy, *others = _figures(cell)
            cells += [f"**{accuracy}**" if cell is not None and cell.best else accuracy, *others]
        rows.append(_row(cells))
    notes = "\n".join(f"- {_md(note)}" for note in _legend(board))
    told = "<!-- Written by `lad-eval leaderboard --format md` from the runs; do not edit. -->"
    return "\n".join([told, "", *rows]) + (f"\n\n{notes}" if notes else "")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", visible(" ".join(text.split())))


def _latex(board: Board) -> str:
    lines = [rf"\begin{{tabular}}{{llr{'rrr' * len(board.tasks)}}}", r"\toprule"]
    spans = [rf"\multicolumn{{3}}{{c}}{{{_tex(task)}}}" for task in board.tasks]
    rules = [rf"\cmidrule(lr){{{4 + 3 * i}-{6 + 3 * i}}}" for i in range(len(board.tasks))]
    lines += [rf"& & & {' & '.join(spans)} \\", " ".join(rules)]
    lines += [rf"Model & Method & Passes & {' & '.join([' & '.join(COLUMNS)] * len(board.tasks))} \\", r"\midrule"]
    for place, line in enumerate(board.lines):
        if line.reported and place and not board.lines[place - 1].reported:
            lines.append(r"\midrule")
        cells = [_tex(line.model), _tex(line.method), _tex(_passes(line))]
        for task in board.tasks:
            cell = line.cells.get(task)
            accuracy, *others = map(_tex, _figures(cell))
            cells += [rf"\textbf{{{accuracy}}}" if cell is not None and cell.best else accuracy, *others]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*lines, *(f"% {note}" for note in _legend(board))])


def _tex(text: str) -> str:
    return latex_text(" ".join(text.split()))


def _html(board: Board) -> str:
    spans = "".join(f'<th colspan="3" scope="colgroup">{escape(task)}</th>' for task in board.tasks)
    names = "".join(f"<th scope=col>{name}</th>" for name in ("Model", "Method", "Passes", *COLUMNS * len(board.tasks)))
    rows = []
    for line in board.lines:
        cells = [f"<th scope=row>{escape(line.model)}</th>", f"<td>{escape(line.method)}</td>", f"<td>{_passes(line)}</td>"]
        for task in board.tasks:
            cell = line.cells.get(task)
            accuracy, *others = map(escape, _figures(cell))
            best = cell is not None and cell.best
            cells += [
                f"<td><strong>{accuracy}</strong></td>" if best else f"<td>{accuracy}</td>",
                *(f"<td>{o}</td>" for o in others),
            ]
        rows.append(f"<tr{' class=reported' if line.reported else ''}>{''.join(cells)}</tr>")
    head = f'<thead><tr><td colspan="3"></td>{spans}</tr>\n<tr>{names}</tr></thead>'
    notes = "".join(f"<p>{escape(note)}</p>\n" for note in _legend(board))
    return "<table>\n" + head + "\n<tbody>\n" + "\n".join(rows) + f"\n</tbody>\n</table>\n{notes}".rstrip("\n")


def _csv_of(board: Board) -> str:
    """A line a model and method; the figures of a task are columns named `task.figure`."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    figures = (*_CSV, "best", "tied", "p_holm")
    writer.writerow([*_KEYS, *(plain_cell(f"{task}.{figure}") for task in board.tasks for figure in figures)])
    for line in board.lines:
        row: list[Any] = list(_who(line).values())
        for task in board.tasks:
            document = {} if (cell := line.cells.get(task)) is None else _document(cell)
            row += [document.get(figure) for figure in figures]
        writer.writerow(map(plain_cell, row))
    return stream.getvalue().rstrip("\n")


def _json(board: Board) -> str:
    """A list: what the line is of, and `tasks`: {task: figures in points}."""
    lines = [
        {**_who(line), "tasks": {task: _document(line.cells[task]) for task in board.tasks if task in line.cells}}
        for line in board.lines
    ]
    return json.dumps(lines, indent=2, allow_nan=False, ensure_ascii=False)


def _who(line: Line) -> dict[str, Any]:
    """What a line is of; `label` is the model's name as tables show it."""
    values = (line.name or line.model, line.model, line.limit, line.calibrated_on, line.method, line.reported)
    return dict(zip(_KEYS, values, strict=True))


def _document(cell: Cell) -> dict[str, Any]:
    standing = cell.standing
    return {
        **{name: getattr(cell, name) for name in _CSV},
        "best": cell.best,
        "tied": cell.tied,
        "p_holm": None if standing is None or standing.best else standing.p_holm,
        "setup": dict(cell.setup),
        "run": cell.run,
    }


def _figures(cell: Cell | None) -> tuple[str, str, str]:
    if cell is None:
        return _EMPTY, _EMPTY, _EMPTY
    mark = f" [{cell.mark}]" if cell.mark else ""
    accuracy = f"{_points(cell.accuracy)}{TIED if cell.tied else ''}{mark}"
    return accuracy, _points(cell.rstd), _points(cell.consistency)


def _points(value: float | None) -> str:
    return _EMPTY if value is None else f"{value:.1f}"


def _passes(line: Line) -> str:
    if line.passes is None:
        return _EMPTY
    least, most = line.passes
    return f"{least:.3g}" if least == most else f"{least:.3g}–{most:.3g}"


def _legend(board: Board) -> list[str]:
    notes = []
    if board.tested:
        notes += [
            "Bold: the best of those that were asked the same questions.",
            f"{TIED}: not significantly less accurate than it (exact paired test over samples, Holm over the column, 0.05).",
        ]
    if any(line.reported for line in board.lines):
        notes.append("(reported): published elsewhere, on other samples; not measured here and not tested.")
    notes += [f"[{letter}]: {text}. Rows of different marks are not comparable." for letter, text in board.marks.items()]
    for line in board.lines:
        if lost := sum(cell.unparsable or 0 for cell in line.cells.values()):
            asked = sum((cell.samples or 0) * (cell.permutations or 0) for cell in line.cells.values())
            notes.append(f"{line.model}, {line.method}: {lost} of {asked} replies had no answer and count as wrong.")
    return [" ".join(note.split()) for note in [*notes, *board.notes]]
