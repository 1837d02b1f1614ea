"""The leaderboard as text: for the terminal, Markdown, LaTeX, HTML, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from lad_eval.errors import UserError
from lad_eval.report.board import Board, Cell, Line
from lad_eval.terminal import plain_cell, visible

if TYPE_CHECKING:
    from rich.text import Text

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
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    signs = {TIED: r"$^{\dagger}$", _EMPTY: "--"}
    plain = {sign: f"\\{sign}" for sign in "&%$#_{}"}
    return "".join({**special, **signs, **plain}.get(sign, sign) for sign in " ".join(text.split()))


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
