"""Tables of a sheet as Markdown, LaTeX, CSV, or as cells for a page."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Literal, get_args

from lad_eval.errors import UserError
from lad_eval.report.sheet import Cell, Measured, PValue, Sheet, Table
from lad_eval.run.rows import COLUMNS, Row
from lad_eval.terminal import plain_cell, visible

if TYPE_CHECKING:
    from rich.console import Group


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "%": r"\%",
        "_": r"\_",
        "&": r"\&",
        "#": r"\#",
        "$": r"\$",
        "†": r"$^{\dagger}$",
        "–": "--",
        "±": r"$\pm$",
        "τ": r"$\tau$",
        "≥": r"$\geq$",
        "−": r"$-$",
    }
)


def latex_text(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return text.translate(_LATEX)


def markdown(sheet: Sheet) -> str:
    """The whole sheet; charts are linked as `figures/<name>.svg`."""
    parts = [f"## {sheet.label}: {sheet.title}"]
    for table in sheet.tables:
        parts += [f"### {table.title}", _pipes(table), *table.notes]
    parts += [f"![{chart.title}. {chart.alt}](figures/{chart.name}.svg)" for chart in sheet.charts]
    parts += sheet.remarks
    parts += [f"Not shown: {line}" for line in sheet.missing]
    return "\n\n".join(parts)


def latex(sheet: Sheet) -> str:
    """The tables with the rules of booktabs, ready to be input; notes as comments."""
    parts = []
    for table in sheet.tables:
        notes = "\n".join(f"% {note}" for note in (table.title, *table.notes))
        parts.append(f"{notes}\n{_booktabs(table)}")
    return "\n\n".join(parts)


def comma_separated(table: Table) -> str:
    """Full precision; a measured column is followed by its `low` and `high`."""
    rows = [*table.rows, *table.reported]
    spans = [any(isinstance(row[i], Measured) for row in rows) for i in range(len(table.columns))]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [
            part
            for name, span in zip(table.columns, spans, strict=True)
            for part in ([name, f"{name} low", f"{name} high"] if span else [name])
        ]
    )
    for row in rows:
        writer.writerow([plain_cell(part) for cell, span in zip(row, spans, strict=True) for part in _values(cell, span)])
    return stream.getvalue()


def plain(cell: Cell, digits: int) -> str:
    """One cell as text: `99.0 [98.3, 99.6]`, the best in bold, a dagger where it is not told apart from the best."""
    if isinstance(cell, Measured):
        text = _number(cell.value, digits)
        if cell.low is not None and cell.high is not None:
            text += f" [{_number(cell.low, digits)}, {_number(cell.high, digits)}]"
        return f"**{text}**" if cell.best else f"{text} †" if cell.tied else text
    if isinstance(cell, PValue):
        return "–" if not math.isfinite(cell.value) else "< 0.001" if cell.value < 0.001 else f"{cell.value:.3f}"
    if isinstance(cell, float):
        return _number(cell, digits)
    return "–" if cell is None else str(cell)


def _tex(cell: Cell, digits: int) -> str:
    if isinstance(cell, Measured):
        text = _number(cell.value, digits)
        if cell.low is not None and cell.high is not None:
            text += rf" {{\scriptsize[{_number(cell.low, digits)}, {_number(cell.high, digits)}]}}"
        return rf"\textbf{{{text}}}" if cell.best else text + latex_text("†") if cell.tied else text
    return latex_text(plain(cell, digits))


def _pipes(table: Table) -> str:
    from tabulate import tabulate

    rows = [[plain(cell, table.digits) for cell in row] for row in (*table.rows, *table.reported)]
    align = ["left" if table.is_text(i) else "right" for i in range(len(table.columns))]
    return tabulate(rows, headers=table.columns, tablefmt="pipe", disable_numparse=True, colalign=align)


def _booktabs(table: Table) -> str:
    def lines(rows: Sequence[Sequence[Cell]]) -> list[str]:
        return [" & ".join(_tex(cell, table.digits) for cell in row) + r" \\" for row in rows]

    reported = [r"\midrule", *lines(table.reported)] if table.reported else []
    body = [*lines(table.rows), *reported]
    columns = "".join("l" if table.is_text(i) else "r" for i in range(len(table.columns)))
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(latex_text(name) for name in table.columns) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _values(cell: Cell, span: bool) -> list[object]:
    if isinstance(cell, Measured):
        return [cell.value, cell.low, cell.high]
    if isinstance(cell, PValue):
        return [cell.value]
    return [cell, None, None] if span else [cell]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


Format = Literal["rich", "md", "latex", "csv", "json"]
FORMATS: tuple[str, ...] = get_args(Format)

_HEADERS = ("Method", "Accuracy ± std", "95 % interval", "RStd", "Consistency", "Unparsable", "Passes / query")
# In two lines each, so that a table fits a terminal of 80 columns.
_NARROW_HEADERS = ("Method", "Accuracy\n± std", "95 %\ninterval", "RStd", "Consis-\ntency", "Unpar-\nsable", "Passes\n/ query")
_TIED = "† not significantly different from the most accurate method of its run (exact paired test over samples, Holm, 0.05)."
_LIMITED = "* only a part of the task was asked (--limit)."


def render(rows: Sequence[Row], form: str) -> str:
    """The rows as text in one of `FORMATS`; "rich" without colours, for files.

    Raises:
        UserError: no such format.
    """
    if form == "json":
        return json.dumps([row.as_dict() for row in rows], indent=2, allow_nan=False)
    if form == "csv":
        return _csv(rows)
    if form in ("md", "latex"):
        return _text_tables(rows, markdown=form == "md")
    if form == "rich":
        return _plain(rows)
    raise UserError(f"Unknown format {form!r}. Choose from {', '.join(FORMATS)}.")


def rich_tables(rows: Sequence[Row]) -> Group:
    """One block a task and model, for `rich.console.Console.print`."""
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    blocks = []
    for block in _blocks(rows, by_model=True):
        table = Table(
            title=escape(visible(" · ".join([block[0].task, block[0].model, *_calibration(block), _asked(block)]))),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 0, 0, 1),
        )
        for header in _NARROW_HEADERS:
            first = header == "Method"
            table.add_column(header, justify="left" if first else "right", vertical="bottom", no_wrap=not first, overflow="fold")
        best = max((row.accuracy for row in block if row.accuracy is not None), default=None)
        for row in block:
            table.add_row(
                *_cells(row, aligned=any(row.tied for row in block)),
                style="bold" if row.accuracy is not None and row.accuracy == best else None,
            )
        blocks.append(table)
    spaced = [part for block in blocks for part in (block, Text())]
    return Group(*spaced, *(Text(note) for note in _notes(rows)))


def _plain(rows: Sequence[Row]) -> str:
    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=120).print(rich_tables(rows))
    return stream.getvalue().rstrip("\n")


def _text_tables(rows: Sequence[Row], *, markdown: bool) -> str:
    from tabulate import tabulate

    parts = []
    for block in _blocks(rows, by_model=False):
        task, transferred = block[0].task, any(row.calibrated_on for row in block)
        cells = [
            [visible(row.model), *_cells(row), _samples(row), *([row.calibrated_on or "–"] if transferred else [])]
            for row in block
        ]
        table = tabulate(
            cells,
            headers=["Model", *_HEADERS, "Samples", *(["Calibrated on"] if transferred else [])],
            tablefmt="pipe" if markdown else "latex_booktabs",
            disable_numparse=True,
            colalign=("left", "left", *["right"] * len(_HEADERS)),
        )
        parts.append(f"### {task}\n\n{table}" if markdown else f"% {task}\n{table}")
    parts += [note if markdown else f"% {note}" for note in _notes(rows)]
    return "\n\n".join(parts)


def _notes(rows: Sequence[Row]) -> list[str]:
    """Lines below the tables, once each: what is limited, and what the runs note of their data."""
    noted = dict.fromkeys((row.task, note) for row in rows for note in row.notes)
    marks = [*([_TIED] if any(row.tied for row in rows) else []), *([_LIMITED] if any(row.limited for row in rows) else [])]
    return [*marks, *(visible(" ".join(f"{task}: {note}".split())) for task, note in noted)]


def _calibration(block: Sequence[Row]) -> list[str]:
    return [f"calibrated on {block[0].calibrated_on}"] if block[0].calibrated_on else []


def _csv(rows: Iterable[Row]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: plain_cell(value) for name, value in row.as_dict().items()} for row in rows)
    return stream.getvalue().rstrip("\n")


def _blocks(rows: Sequence[Row], *, by_model: bool) -> list[list[Row]]:
    """Rows of a task (and model, and origin of calibration), in the order in which they first came."""
    tasks = {row.task: place for place, row in reversed(list(enumerate(rows)))}
    models = {_who(row): place for place, row in reversed(list(enumerate(rows)))}

    def block_of(row: Row) -> tuple[int, int]:
        return tasks[row.task], models[_who(row)] if by_model else 0

    return [list(block) for _, block in groupby(sorted(rows, key=block_of), key=block_of)]


def _who(row: Row) -> tuple[str, str | None]:
    return row.model, row.calibrated_on


def _cells(row: Row, *, aligned: bool = False) -> list[str]:
    interval = (
        "–" if row.accuracy_low is None or row.accuracy_high is None else f"[{row.accuracy_low:.1f}, {row.accuracy_high:.1f}]"
    )
    accuracy = _points(row.accuracy) if row.accuracy_std is None else f"{_points(row.accuracy)} ± {row.accuracy_std:.1f}"
    accuracy += "†" if row.tied else " " if aligned else ""
    passes = "–" if row.forward_passes is None else f"{row.forward_passes:{'.0f' if row.forward_passes >= 1000 else '.3g'}}"
    unparsable = "–" if row.unparsable is None else str(row.unparsable)
    return [visible(row.method), accuracy, interval, _points(row.rstd), _points(row.consistency), unparsable, passes]


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _samples(row: Row) -> str:
    if row.samples is None:
        return "–"
    return f"{row.samples}{'*' if row.limited else ''} x {row.permutations}"


def _asked(block: Sequence[Row]) -> str:
    """What the block's rows were measured on; rows of different sizes are told apart."""
    if all(row.samples is None for row in block):
        return "published elsewhere"
    sizes = list(dict.fromkeys(_samples(row) for row in block))
    return ", ".join(f"{size.replace(' x ', ' samples x ')} permutations" for size in sizes)
