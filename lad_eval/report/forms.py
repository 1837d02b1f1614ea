"""A table in every format: for a terminal, as Markdown, LaTeX, CSV, and as HTML."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from lad_eval.report.table import SOFT_HYPHEN, TIED, Cell, Table, Value
from lad_eval.terminal import plain_cell, visible

if TYPE_CHECKING:
    from markupsafe import Markup
    from rich.text import Text

_GAP = "  "
WIDTH_OF_FILES = 140
"""For a table written to a file, which must not be cut at 80 columns."""
_NARROWEST = 8
"""Characters; no column is wrapped more narrowly."""
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


def terminal(table: Table, width: int | None = WIDTH_OF_FILES) -> Text:
    """The table for a terminal of this many columns (None: unlimited); the best cells are bold, reported rows dim."""
    from rich.text import Text

    heads = [name.replace(SOFT_HYPHEN, "-\n").split("\n") for name in table.columns]
    body = [[_lines(table, cell, column) for column, cell in enumerate(row)] for row in table.cells]
    widths = [max(len(line) for lines in column for line in lines) for column in zip(heads, *body, strict=True)]
    excess = 0 if width is None else sum(widths) + len(_GAP) * (len(widths) - 1) - width
    if excess > 0 and not table.groups:
        widths[table.fold] = max(widths[table.fold] - excess, _NARROWEST)
        for row in body:
            row[table.fold] = [part for line in row[table.fold] for part in _folded(line, widths[table.fold])]
    blocks = [_block(table, spans, heads, body, widths) for spans in _blocks(table, widths, width)]
    notes = Text("\n".join(visible(_one_line(note)) for note in table.notes))
    text = Text("\n\n").join(part for part in (*blocks, notes) if part)
    return Text("\n").join([Text(visible(_one_line(table.title)), "bold"), text]) if table.title else text


def _folded(line: str, width: int) -> list[str]:
    """The line in pieces of at most `width` characters, split after a space or one of the characters + , ( of a method's name."""
    pieces = [""]
    for part in re.findall(r"[^ +,(]*[ +,(]|[^ +,(]+", line):
        if len(pieces[-1]) + len(part.rstrip()) > width:
            first, *others = wrap(part, width, break_on_hyphens=False)
            pieces += [first, *others]
            pieces[-1] += " " * part.endswith(" ")
        else:
            pieces[-1] += part
    return [piece.rstrip() for piece in pieces if piece.strip()]


def _lines(table: Table, cell: Cell, column: int) -> list[str]:
    """A cell in a terminal; numbers without a dagger leave room for it, so that columns stay aligned."""
    aligned = not table.left[column] and any(row[column].tied for row in table.cells)
    text = f"{cell.text}{TIED if cell.tied else ' ' if aligned else ''}{cell.mark}"
    return (f"{text} {cell.interval}" if cell.interval else text).split("\n")


def _blocks(table: Table, widths: Sequence[int], width: int | None) -> list[list[tuple[str, range]]]:
    """The groups of columns in blocks that fit a width; each has the first group and at least one other."""
    first, *others = table.spans
    taken = _span_width(first, widths)
    blocks, room = [[first]], 0 if width is None else width - taken
    for span in others:
        needed = len(_GAP) + _span_width(span, widths)
        if width is not None and needed > room and len(blocks[-1]) > 1:
            blocks.append([first])
            room = width - taken
        blocks[-1].append(span)
        room -= needed
    return blocks


def _span_width(span: tuple[str, range], widths: Sequence[int]) -> int:
    name, columns = span
    return max(sum(widths[column] for column in columns) + len(_GAP) * (len(columns) - 1), len(visible(name)))


def _block(
    table: Table,
    spans: Sequence[tuple[str, range]],
    heads: Sequence[list[str]],
    body: Sequence[Sequence[list[str]]],
    widths: Sequence[int],
) -> Text:
    """Some of the groups: names and a rule above the rows, if columns have names."""
    from rich.text import Text

    shown = [_span_width(span, widths) for span in spans]

    def line(cells: Sequence[list[str]], place: int, styles: Sequence[str]) -> Text:
        parts = []
        for (_, columns), span in zip(spans, shown, strict=True):
            part = Text(_GAP).join(
                Text(_at(cells[c], place).ljust(widths[c]) if table.left[c] else _at(cells[c], place).rjust(widths[c]), styles[c])
                for c in columns
            )
            part.pad_right(span - len(part))
            parts.append(part)
        joined = Text(_GAP).join(parts)
        joined.rstrip()
        return joined

    lines = []
    if any(name for name, _ in spans):
        names = _GAP.join(visible(name).ljust(span) for (name, _), span in zip(spans, shown, strict=True))
        lines.append(Text(names.rstrip(), "bold"))
    if any(table.columns):
        height = max(map(len, heads))
        low = [[*[""] * (height - len(head)), *map(visible, head)] for head in heads]
        lines += [line(low, place, ["bold"] * len(heads)) for place in range(height)]
        lines.append(Text("─" * (sum(shown) + len(_GAP) * (len(shown) - 1))))
    for number, row in enumerate(body):
        reported = number >= len(table.rows)
        styles = ["bold" if cell.best else "dim" if reported else "" for cell in table.cells[number]]
        lines += [line(row, place, styles) for place in range(max(map(len, row)))]
    return Text("\n").join(lines)


def _at(lines: Sequence[str], place: int) -> str:
    return lines[place] if place < len(lines) else ""


def markdown(table: Table) -> str:
    """Title, rows between pipes, and notes as a list."""
    from tabulate import tabulate

    names = [markdown_text(name) for name in table.names]
    for group, columns in table.spans[1:]:
        names[columns[0]] = f"{markdown_text(group)}<br>{names[columns[0]]}"
        for column in columns[1:]:
            names[column] = f"<br>{names[column]}"
    rows = [[_markdown_cell(cell) for cell in row] for row in table.cells]
    align = ["left" if left else "right" for left in table.left]
    grid = tabulate(rows, headers=names, tablefmt="pipe", disable_numparse=True, colalign=align)
    notes = "\n".join(f"- {markdown_text(note)}" for note in table.notes)
    return "\n\n".join(part for part in (f"### {markdown_text(table.title)}" if table.title else "", grid, notes) if part)


def markdown_text(text: str) -> str:
    """Text escaped for Markdown, on one line."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", visible(_one_line(text)))


def _markdown_cell(cell: Cell) -> str:
    text = markdown_text(cell.text) if isinstance(cell.value, str) else _one_line(cell.text)
    return _joined(f"**{text}**" if cell.best else text, TIED if cell.tied else "", cell.mark, cell.interval)


def latex(table: Table) -> str:
    """A `tabular` with the rules of booktabs, ready to be included; title and notes as comments."""
    first, *groups = table.spans
    columns = "".join("l" if left else "r" for left in table.left)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    if groups:
        spans = [rf"\multicolumn{{{len(span)}}}{{c}}{{{latex_text(group)}}}" for group, span in groups]
        lines.append(" & ".join([""] * len(first[1]) + spans) + r" \\")
        lines.append(" ".join(rf"\cmidrule(lr){{{span.start + 1}-{span.stop}}}" for _, span in groups))
    lines += [" & ".join(map(latex_text, table.names)) + r" \\", r"\midrule"]
    rows = [" & ".join(map(_latex_cell, row)) + r" \\" for row in table.cells]
    # LaTeX would read a bracket after \\ as that command's option.
    rows = [f"{{}}{row}" if row.startswith("[") else row for row in rows]
    ours = len(table.rows)
    lines += [*rows[:ours], *([r"\midrule", *rows[ours:]] if rows[ours:] else []), r"\bottomrule", r"\end{tabular}"]
    title, *notes = (f"% {visible(_one_line(text))}" for text in (table.title, *table.notes))
    return "\n".join([*([title] if table.title else []), *lines, *notes])


def latex_text(text: str) -> str:
    """Text escaped for LaTeX, on one line."""
    return visible(_one_line(text)).translate(_LATEX)


def _latex_cell(cell: Cell) -> str:
    text = latex_text(cell.text)
    interval = rf"{{\scriptsize{cell.interval}}}" if cell.interval else ""
    return _joined(rf"\textbf{{{text}}}" if cell.best else text, latex_text(TIED) if cell.tied else "", cell.mark, interval)


def comma_separated(table: Table) -> str:
    """Unrounded values, one row per line; a column with intervals is followed by its `low` and `high`."""
    measured = [any(row[column].low is not None for row in table.cells) for column in range(len(table.columns))]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    lines = [
        [_parts(name, f"{name} low", f"{name} high", spans) for name, spans in zip(table.names, measured, strict=True)],
        *([_parts(c.value, c.low, c.high, spans) for c, spans in zip(row, measured, strict=True)] for row in table.cells),
    ]
    writer.writerows([plain_cell(value) for parts in line for value in parts] for line in lines)
    return stream.getvalue().rstrip("\n")


def _parts(value: Value, low: Value, high: Value, spans: bool) -> list[Value]:
    return [value, low, high] if spans else [value]


def html(table: Table) -> Markup:
    """A `table` element, its first column as row headers, and the notes as paragraphs; the page adds the title."""
    from markupsafe import Markup

    first, *groups = table.spans
    spans = [Markup('<th colspan="{}" scope="colgroup">{}</th>').format(len(span), visible(name)) for name, span in groups]
    above = Markup('<tr><td colspan="{}"></td>{}</tr>\n').format(len(first[1]), Markup("").join(spans)) if groups else Markup("")
    classes = [Markup(' class="text"' if left and column else "") for column, left in enumerate(table.left)]
    names = [Markup('<th scope="col"{}>{}</th>').format(*pair) for pair in zip(classes, table.columns, strict=True)]
    rows = []
    for number, row in enumerate(table.cells):
        head, *cells = map(_html_cell, row)
        data = [Markup("<td{}>{}</td>").format(*pair) for pair in zip(classes[1:], cells, strict=True)]
        style = Markup(' class="reported"' if number >= len(table.rows) else "")
        rows.append(Markup('<tr{}><th scope="row">{}</th>{}</tr>').format(style, head, Markup("").join(data)))
    grid = Markup('<table class="numbers">\n<thead>{}<tr>{}</tr></thead>\n<tbody>\n{}\n</tbody>\n</table>')
    notes = [Markup('<p class="note">{}</p>').format(visible(_one_line(note))) for note in table.notes]
    return Markup("\n").join([grid.format(above, Markup("").join(names), Markup("\n").join(rows)), *notes])


def _html_cell(cell: Cell) -> Markup:
    from markupsafe import Markup

    text = Markup("<strong>{}</strong>").format(cell.text) if cell.best else cell.text
    interval = Markup(' <span class="interval">{}</span>').format(cell.interval) if cell.interval else ""
    return Markup("{}{}{}{}").format(text, TIED if cell.tied else "", cell.mark, interval)


def _joined(text: str, tied: str, mark: str, interval: str) -> str:
    return f"{text}{tied}{mark} {interval}" if interval else f"{text}{tied}{mark}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
