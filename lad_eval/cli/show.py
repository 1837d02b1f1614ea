"""Printing rows to stdout."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lad_eval.terminal import write, write_json

if TYPE_CHECKING:
    from lad_eval.report.rows import Row

logger = logging.getLogger(__name__)

# A table that is piped into a file must not be cut at 80 columns.
WIDTH_OF_FILES = 140


def say_next(*commands: str, kept: str | Path | None = None) -> None:
    """One line on stderr, unless quiet: where results lie, and what a reader may type next."""
    where = [] if kept is None else [f"Kept in {kept}"]
    logger.info("%s", " · ".join([*where, f"next: {', or '.join(commands)}"]))


def show_rows(rows: Sequence[Row], form: str) -> None:
    """Prints rows as `form`, an entry of `report.tables.FORMATS`."""
    from lad_eval.report.tables import render, rich_tables

    if form == "rich":
        from rich.console import Console

        Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES).print(rich_tables(rows))
        return
    text = render(rows, form)
    if form == "json":
        write_json(text)
    else:
        write(text + "\n")
