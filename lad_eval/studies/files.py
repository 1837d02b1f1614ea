"""What every study writes: tables as CSV and LaTeX, figures as SVG and PDF, and pictures inside its page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from lad_eval.files.atomic import write_atomically
from lad_eval.report.charts import DARK, LIGHT, Theme, draw
from lad_eval.report.forms import comma_separated
from lad_eval.report.sheet import Chart, Sheet


class Picture(NamedTuple):
    """One panel as data URIs for a light and a dark page."""

    title: str
    light: str
    dark: str


def pictures(chart: Chart) -> list[Picture]:
    """A picture a panel, so that they stand side by side or, on a phone, below each other."""
    alone = [replace(chart, panels=(panel,)) for panel in chart.panels]
    return [Picture(one.panels[0].title or chart.title, _uri(one, LIGHT), _uri(one, DARK)) for one in alone]


def write_parts(folder: Path, sheets: Sequence[Sheet]) -> None:
    """Tables and figures of all sheets, a file each, in `tables` and `figures` below the folder."""
    for document in sheets:
        for number, table in enumerate(document.tables, 1):
            name = document.name if len(document.tables) == 1 else f"{document.name}-{number}"
            write_text(folder / "tables" / f"{name}.csv", comma_separated(table) + "\n")
        if document.tables:
            write_text(folder / "tables" / f"{document.name}.tex", document.latex() + "\n")
        for chart in document.charts:
            _write(folder / "figures" / f"{chart.name}.svg", draw(chart, "svg"))
            _write(folder / "figures" / f"{chart.name}.pdf", draw(chart, "pdf"))


def write_text(path: Path, text: str) -> None:
    """The file at once, in UTF-8."""
    _write(path, text.encode())


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def _uri(chart: Chart, theme: Theme) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(draw(chart, "svg", theme)).decode()
