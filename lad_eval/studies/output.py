"""The folder that a study writes: one HTML page, Markdown, tables as CSV and LaTeX, figures as SVG, PDF and PNG."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lad_eval.files.atomic import write_atomically
from lad_eval.models.source import EMBEDDED
from lad_eval.report.charts import DARK, LIGHT, Theme, draw
from lad_eval.report.forms import comma_separated, markdown_text
from lad_eval.report.html import frame
from lad_eval.report.panels import Chart
from lad_eval.run.folder.metadata import checkout
from lad_eval.run.settings import Settings
from lad_eval.studies.document import StudyDocument
from lad_eval.version import __version__

FORMS: tuple[Literal["svg", "pdf", "png"], ...] = ("svg", "pdf", "png")
"""One file per figure in each format."""


@dataclass(frozen=True)
class StudyReport:
    """Everything that a study shows about one model.

    Attributes:
        name: of the study and of its Markdown file.
        heading: of the page: what was measured, of which model, on which tasks.
        introduction: what the page shows, one sentence before the link to the paper.
        paper: the paper's title.
        arxiv: the paper's number on arXiv.
        documents: in their order.
        findings: one sentence each.
        notices: what a reader should know first; one paragraph each.
        provenance: lines of the footer.
    """

    name: str
    heading: str
    introduction: str
    paper: str
    arxiv: str
    documents: tuple[StudyDocument, ...]
    findings: Sequence[str] = ()
    notices: Sequence[str] = ()
    provenance: Sequence[str] = ()


@dataclass(frozen=True)
class StudyOutput:
    """What a study wrote: its documents, and the folder that they are in."""

    folder: Path
    documents: tuple[StudyDocument, ...]

    @property
    def page(self) -> Path:
        """The HTML page."""
        return self.folder / "report.html"


class PanelImage(NamedTuple):
    """One panel of a chart as data URIs for a light and a dark page."""

    title: str
    light: str
    dark: str


def write_study(report: StudyReport, folder: Path) -> StudyOutput:
    """Writes `report.html`, `<name>.md`, `tables/` and `figures/`.

    Raises:
        UserError: a file cannot be written.
    """
    output = StudyOutput(folder, report.documents)
    for document in report.documents:
        for number, table in enumerate(document.tables, 1):
            name = document.name if len(document.tables) == 1 else f"{document.name}-{number}"
            _write_text(folder / "tables" / f"{name}.csv", comma_separated(table) + "\n")
        if document.tables:
            _write_text(folder / "tables" / f"{document.name}.tex", document.latex() + "\n")
        for chart in document.charts:
            for form in FORMS:
                _write(folder / "figures" / f"{chart.name}.{form}", draw(chart, form))
    lines = [*report.findings, *report.notices]
    parts = [f"# {report.heading}", *map(markdown_text, lines), *(document.markdown() for document in report.documents)]
    _write_text(folder / f"{report.name}.md", "\n\n".join(parts) + "\n")
    _write_text(output.page, page(report))
    return output


def page(report: StudyReport) -> str:
    """Self-contained HTML; all text is escaped."""
    title = f"{report.heading}: tables and figures"
    return frame.page(
        "study.html", title=title, heading=report.heading, across=report.findings, report=report, images=panel_images
    )


def panel_images(chart: Chart) -> list[PanelImage]:
    """One image per panel, so that panels are side by side or, on a phone, stacked."""
    single = [replace(chart, panels=(panel,)) for panel in chart.panels]
    return [PanelImage(one.panels[0].title or chart.title, _uri(one, LIGHT), _uri(one, DARK)) for one in single]


def notices(settings: Settings) -> list[str]:
    """Caveats of any study: few samples, a model that was built for demonstration."""
    lines = []
    if settings.limit is not None:
        lines.append(f"Only the first {settings.limit} samples of each task were evaluated.")
    if settings.model in EMBEDDED:
        lines.append(
            f"{settings.model} is a model organism whose bias and attention are trained in: "
            "it shows that the method works and says nothing about other models."
        )
    return lines


def provenance(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The dtype, attention implementation and device of the runs (`metrics.json`), and the code that made the page."""
    keys = ("dtype", "attention_implementation", "device")
    values_of = {key: sorted({json.dumps(run.get(key)) for run in runs}) for key in keys}
    lines = [f"{key.replace('_', ' ')}: {', '.join(values)}".replace('"', "") for key, values in values_of.items()]
    return [*lines, f"made with lad_eval {__version__}, {json.dumps(checkout())}"]


def _write_text(path: Path, text: str) -> None:
    _write(path, text.encode())


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def _uri(chart: Chart, theme: Theme) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(draw(chart, "svg", theme)).decode()
