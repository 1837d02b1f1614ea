"""Charts as values: heat maps, line, density and scatter plots side by side; `report.charts` draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lad_eval.evidence.table import Floats


@dataclass(frozen=True)
class HeatMap:
    """Cells Float[rows, columns], coloured from `low` to `high`; without ticks no cell shows its number."""

    title: str
    values: Floats
    x_label: str
    y_label: str
    ticks: tuple[str, ...]
    low: float = 0.0
    high: float = 100.0
    digits: int = 0


class Series(NamedTuple):
    """One line of a plot, Float[points] each; `low` and `high` bound its 95 % intervals."""

    name: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None


@dataclass(frozen=True)
class LinePlot:
    """Series over one axis up to `top`; `chance` is a level to compare with."""

    title: str
    series: tuple[Series, ...]
    x_label: str
    y_label: str
    log_x: bool = False
    chance: tuple[Floats, Floats] | None = None
    top: float = 100.0


@dataclass(frozen=True)
class DensityPlot:
    """The density of points in the unit square, Float[n] each."""

    title: str
    x: Floats
    y: Floats
    x_label: str
    y_label: str


class Points(NamedTuple):
    """Points under one name, Float[n] each."""

    name: str
    x: Floats
    y: Floats


@dataclass(frozen=True)
class ScatterPlot:
    """Points under several names in a plane whose axes mean nothing, such as that of t-SNE."""

    title: str
    groups: tuple[Points, ...]
    x_label: str = ""
    y_label: str = ""


Panel = HeatMap | LinePlot | DensityPlot | ScatterPlot


@dataclass(frozen=True)
class Chart:
    """Panels side by side; `alt` describes in words what they show."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    alt: str
