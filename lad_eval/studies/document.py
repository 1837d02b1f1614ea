"""A finished part of a study: tables and charts with the notes that a reader needs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lad_eval.report.forms import latex, markdown, markdown_text
from lad_eval.report.panels import Chart
from lad_eval.report.table import Table


@dataclass(frozen=True)
class StudyDocument:
    """Tables and charts under one heading.

    Attributes:
        name: "table4", "figure6"; names its files and its anchor in the page.
        title: what it shows.
        remarks: notes on the charts, one paragraph each.
        missing: what could not be shown, and what it would take to show it; nothing is left out without such a line.
    """

    name: str
    title: str
    tables: tuple[Table, ...] = ()
    charts: tuple[Chart, ...] = ()
    remarks: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The name for readers: "Table 4"; "Accuracy" of "accuracy-himap", since the title names the rest."""
        return re.sub(r"(?<=[a-z])(?=\d)", " ", self.name.partition("-")[0]).capitalize()

    def markdown(self) -> str:
        """The whole document; charts are linked as `figures/<name>.svg`."""
        parts = [f"## {self.label}: {markdown_text(self.title)}", *map(markdown, self.tables)]
        parts += [f"![{chart.title}. {chart.alt}](figures/{chart.name}.svg)" for chart in self.charts]
        parts += map(markdown_text, self.remarks)
        parts += [f"Not shown: {markdown_text(line)}" for line in self.missing]
        return "\n\n".join(parts)

    def latex(self) -> str:
        """The tables as LaTeX, ready to be included."""
        return "\n\n".join(map(latex, self.tables))
