"""Tables of a sheet as Markdown, LaTeX, CSV, or as cells for a page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from lad_eval.studies.sheet import Cell, Measured, PValue, Sheet, Table
from lad_eval.terminal import plain_cell

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
        "†": r"$^\dagger$",
        "±": r"$\pm$",
        "τ": r"$\tau$",
        "≥": r"$\geq$",
        "−": r"$-$",
    }
)


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
        return rf"\textbf{{{text}}}" if cell.best else rf"{text}$^\dagger$" if cell.tied else text
    return plain(cell, digits).translate(_LATEX)


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
            " & ".join(name.translate(_LATEX) for name in table.columns) + r" \\",
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
