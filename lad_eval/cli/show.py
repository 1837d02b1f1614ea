"""Printing rows to stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lad_eval.report.rows import Row
from lad_eval.report.tables import render, rich_tables
from lad_eval.terminal import write, write_json

# A table that is piped into a file must not be cut at 80 columns.
WIDTH_OF_FILES = 140


def show_rows(rows: Sequence[Row], form: str) -> None:
    """Prints rows as `form`, an entry of `report.tables.FORMATS`."""
    if form == "rich":
        from rich.console import Console

        Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES).print(rich_tables(rows))
        return
    text = render(rows, form)
    if form == "json":
        write_json(text)
    else:
        write(text + "\n")
