"""All sheets on one page that asks nothing of the outside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from lad_eval.studies.charts import DARK, LIGHT, Theme, draw
from lad_eval.studies.render import plain
from lad_eval.studies.sheet import Cell, Chart, Measured, Sheet

if TYPE_CHECKING:
    from markupsafe import Markup


def page(
    sheets: Sequence[Sheet],
    *,
    model: str,
    tasks: str,
    version: str,
    finding: Sequence[str] = (),
    preface: Sequence[str] = (),
    provenance: Sequence[str] = (),
) -> str:
    """HTML with everything inside; names and captions are escaped.

    Args:
        sheets: in their order.
        model: its name.
        tasks: what was asked, in a few words, as they follow "on".
        finding: what came out, a sentence each.
        version: of this package.
        preface: paragraphs under the title.
        provenance: lines of the footer.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(resources.files("lad_eval.studies").joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        sheets=sheets,
        model=model,
        tasks=tasks,
        version=version,
        finding=finding,
        preface=preface,
        provenance=provenance,
        shown=_shown,
        pictures=_pictures,
    )


def _shown(cell: Cell, digits: int) -> Markup:
    from markupsafe import Markup, escape

    if not isinstance(cell, Measured):
        return escape(plain(cell, digits))
    value = Markup("<strong>{}</strong>" if cell.best else "{}").format(plain(cell.value, digits)) + (" †" if cell.tied else "")
    if cell.low is None or cell.high is None:
        return value
    span = Markup(' <span class="interval">[{}, {}]</span>').format(plain(cell.low, digits), plain(cell.high, digits))
    return value + span


class Picture(NamedTuple):
    """One panel as data URIs for a light and a dark page."""

    title: str
    light: str
    dark: str


def _pictures(chart: Chart) -> list[Picture]:
    """A picture a panel, so that they stand side by side or, on a phone, below each other."""
    alone = [replace(chart, panels=(panel,)) for panel in chart.panels]
    return [Picture(one.panels[0].title or chart.title, _uri(one, LIGHT), _uri(one, DARK)) for one in alone]


def _uri(chart: Chart, theme: Theme) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(draw(chart, "svg", theme)).decode()
