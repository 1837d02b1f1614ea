"""Captions in tables: CSV and similar formats with or without a header, Flickr's token files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lad_eval.errors import DataError
from lad_eval.tasks.sources.captions_json import NUMBER_KEYS, Entry, find_keys, find_keys_or_none, shortly

_DELIMITERS = {".csv": ",;\t|", ".tsv": "\t,;|", ".txt": "\t|,;", ".token": "\t|,;"}
_PICTURE = r"\.(?:jpe?g|png|webp|bmp|gif|tiff?)"
_TOKEN = re.compile(r"([^\t]+)#(\d+)\t(.*)")
_NUMBERED_NAME = re.compile(rf"(.*{_PICTURE}) ?# ?(\d+)", re.IGNORECASE)
_PICTURE_NAME = re.compile(rf".*{_PICTURE}(?: ?# ?\d+)?", re.IGNORECASE)
_NUMBER_AND_CAPTION = re.compile(r"\s*(\d+)\s+(\S.*)")
_EXCEL = re.compile(r"sep=(.)")


@dataclass(frozen=True)
class _Layout:
    """How a table is read.

    Attributes:
        delimiter: between cells.
        name: column of the names.
        captions: columns of the captions.
        number: column that numbers the captions of a picture.
        columns: how many there are.
        header: whether the first line names them.
    """

    delimiter: str
    name: int
    captions: tuple[int, ...]
    number: int | None
    columns: int
    header: bool


def table_entries(text: str, where: str, suffix: str) -> Iterator[Entry]:
    """Names and captions of a table, a picture's captions in the order of their numbers, where it has them.

    Raises:
        DataError: the columns are ambiguous, a line has too many cells, or a quotation mark is not closed.
    """
    numbered: dict[str, list[tuple[int, int, str]]] = {}
    rows = _token_rows(text, where) if _TOKEN.fullmatch(_first_line(text)) else _rows(text, where, suffix)
    for line, (name, number, caption) in enumerate(rows):
        numbered.setdefault(name, []).append((line if number is None else number, line, caption))
    for name, captions in numbered.items():
        yield name, [caption for _, _, caption in sorted(captions)]


def _first_line(text: str) -> str:
    return next((line for line in text.split("\n") if line.strip()), "")


def _token_rows(text: str, where: str) -> Iterator[tuple[str, int, str]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            match = _TOKEN.fullmatch(line)
            if match is None:
                raise DataError(f"{where}: line {number}: expected <image>#<number><tab><caption>, as in the first line.")
            yield match[1], int(match[2]), match[3]


def _rows(text: str, where: str, suffix: str) -> Iterator[tuple[str, int | None, str]]:
    delimiters = _DELIMITERS[suffix]
    if match := _EXCEL.fullmatch(_first_line(text).strip()):
        delimiters = match[1]
        text = text.split("\n", 1)[-1] if "\n" in text else ""
    layout = _layout(_first_line(text), delimiters, where)
    lines = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=layout.delimiter,
        # In files with bars quotation marks are text; in those with commas they enclose cells.
        quoting=csv.QUOTE_NONE if layout.delimiter == "|" else csv.QUOTE_MINIMAL,
    )
    wanted = layout.header
    try:
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if wanted:
                wanted = False
                continue
            yield from _row(cells, layout, f"{where}: line {lines.line_num}")
    except csv.Error as error:
        raise DataError(f"{where}: line {lines.line_num}: {error}.") from None


def _row(cells: list[str], layout: _Layout, where: str) -> Iterator[tuple[str, int | None, str]]:
    if any(_swallows_a_line(cell, layout.delimiter) for cell in cells):
        raise DataError(f"{where}: a quotation mark opens a cell and is not closed; double it, or take it out.")
    last = layout.captions[-1]
    while len(cells) > layout.columns and not cells[-1].strip():
        cells = cells[:-1]
    if len(cells) > layout.columns:
        if last != layout.columns - 1:
            raise DataError(f"{where}: too many fields; put a caption with {layout.delimiter!r} in quotes.")
        # The caption is the last column, so further cells are parts of it.
        cells = [*cells[:last], layout.delimiter.join(cells[last:])]
    cells = [*cells, *[""] * (layout.columns - len(cells))]
    name, number = cells[layout.name].strip(), None
    if not name:
        raise DataError(f"{where}: names no image.")
    if match := _NUMBERED_NAME.fullmatch(name):
        name, number = match[1], int(match[2])
    if layout.number is not None:
        text = cells[layout.number].strip()
        number = int(text) if text.isdecimal() else None
        # Flickr30k's own table lacks a bar between number and caption in one line.
        if not cells[last].strip() and (match := _NUMBER_AND_CAPTION.fullmatch(cells[layout.number])):
            number, cells[last] = int(match[1]), match[2]
    for column in layout.captions:
        if cells[column].strip() or len(layout.captions) == 1:
            yield name, number, cells[column]


def _layout(first: str, delimiters: str, where: str) -> _Layout:
    """The columns, from a header or, where the first line begins with a picture's name, from their order.

    Raises:
        DataError: the line is neither.
    """
    if not first:
        raise DataError(f"{where}: holds no caption.")
    split = {delimiter: _cells(first, delimiter) for delimiter in delimiters}
    for delimiter, cells in split.items():
        keys = find_keys_or_none(cells)
        if keys is not None and len(cells) > 1:
            lower = [cell.strip().lower() for cell in cells]
            number = next((lower.index(key) for key in NUMBER_KEYS if key in lower), None)
            captions = tuple(sorted(cells.index(caption) for caption in keys[1]))
            return _Layout(delimiter, cells.index(keys[0]), captions, number, len(cells), header=True)
    for delimiter, cells in split.items():
        if len(cells) > 1 and _PICTURE_NAME.fullmatch(cells[0].strip()):
            numbered = len(cells) > 2 and cells[1].strip().isdecimal()
            last = 2 if numbered else 1
            return _Layout(delimiter, 0, (last,), 1 if numbered else None, last + 1, header=False)
    widest = max(split.values(), key=len)
    seen = f"{where}: the first line has the columns {shortly(widest)}"
    find_keys(widest, seen)
    raise DataError(f"{seen}; expected two or more columns.")


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _swallows_a_line(cell: str, delimiter: str) -> bool:
    """Whether a cell holds what looks like the beginning of another row."""
    return "\n" in cell and re.search(rf"\n[^\n]*{_PICTURE}[^\n]{{0,4}}{re.escape(delimiter)}", cell, re.IGNORECASE) is not None
