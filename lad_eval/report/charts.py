"""A figure of position bias: recall of the right image by its position."""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lad_eval.errors import UserError
from lad_eval.evidence.table import Floats
from lad_eval.files.atomic import write_atomically
from lad_eval.report.panels import Chart, DensityPlot, HeatMap, LinePlot, Panel, ScatterPlot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


INK, QUIET, RULE = "#1b1e23", "#5a6069", "#dcdfe3"
COLOURS = {
    "vanilla": "#8a9099",
    "pride": "#a36c00",
    "lad": "#0b5cad",
    "raw-attention": "#a83a86",
    "purified-attention": "#0b7f63",
    "permutation-average": "#30343a",
}
MORE = ("#c04a12", "#6647b8", "#4d7a12", "#0e7c94")
MOST_TOGETHER = 4
"""The most methods in one panel; with more, each gets its own."""
MOST_NUMBERED = 24
"""The most bars of a panel that are labelled with their numbers."""
MOST_MARKED = 24
"""The most points of a line with a marker and a tick each."""

Values = Sequence[float | None]


@dataclass(frozen=True)
class PositionBars:
    """Recall of one method by position in points, with the bounds of its 95 % intervals; None where unknown."""

    name: str
    values: Values
    low: Values
    high: Values


def draw_positions(methods: Sequence[PositionBars], title: str, subtitle: str, out: Path) -> None:
    """Draws bars of recall by position and writes them to a file (.svg, .png, .pdf).

    Args:
        methods: N positions each.
        title: what the figure shows.
        subtitle: below the title, what it was measured on.
        out: the file.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    one_panel = len(methods) <= MOST_TOGETHER
    panels = [list(methods)] if one_panel else [[method] for method in methods]
    across = min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    colours = _colours([method.name for method in methods])
    wide = max(7.0, min(14.0, 1.4 + 0.36 * len(methods[0].values) * len(methods))) if one_panel else 3.3 * across
    # No date and no random ids in the file: the same figures give the same bytes.
    with rc_context({"svg.hashsalt": "lad_eval", "font.size": 9, "text.color": INK, "axes.labelcolor": INK}):
        layout = ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.1)
        figure = Figure(figsize=(wide, 4.1 if one_panel else 0.9 + 2.1 * down), layout=layout)
        figure.suptitle("\n".join(textwrap.wrap(title, int(10.5 * wide))), x=0.02, ha="left", fontsize=12.5, fontweight="bold")
        grid: Any = figure.subplots(down, across, squeeze=False, sharey=True)
        for place, (axes, shown) in enumerate(zip(grid.flat, panels, strict=False)):
            _draw_panel(axes, shown, colours)
            axes.set_title(subtitle if one_panel else shown[0].name, loc="left", fontsize=9.5, color=QUIET if one_panel else INK)
            if place % across == 0:
                axes.set_ylabel("recall (%)")
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        if one_panel:
            grid.flat[0].set_xlabel("position of the right image", loc="left")
            grid.flat[0].legend(frameon=False, ncols=len(methods) + 1, loc="upper left", bbox_to_anchor=(-0.015, -0.11))
        else:
            figure.supxlabel(f"position of the right image; {subtitle}", x=0.02, ha="left", fontsize=9, color=QUIET)
        try:
            form = out.suffix.lower().removeprefix(".") or "png"
            metadata = {"Date": None} if form == "svg" else None
            write_atomically(out, lambda temporary: figure.savefig(temporary, dpi=160, format=form, metadata=metadata))
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot write the figure to {out}: {error}.") from error


def _draw_panel(axes: Any, methods: Sequence[PositionBars], colours: Mapping[str, str]) -> None:
    n = len(methods[0].values)
    positions = np.arange(1, n + 1)
    width = 0.8 / len(methods)
    numbered = n * len(methods) <= MOST_NUMBERED
    for place, method in enumerate(methods):
        x = positions + (place - (len(methods) - 1) / 2) * width
        values, low, high = _array(method.values), _array(method.low), _array(method.high)
        colour = colours[method.name]
        axes.bar(x, values, width * 0.9, label=method.name, color=colour)
        none = values == 0  # a bar without height would look like a missing one
        axes.hlines(np.full(none.sum(), 0.7), x[none] - 0.45 * width, x[none] + 0.45 * width, colour, linewidth=3)
        axes.vlines(x, low, high, colors="white", linewidth=3)  # so that the interval is visible on a dark bar
        axes.vlines(x, low, high, colors=INK, linewidth=1.2)
        for at, value, top in zip(x, values, np.fmax(values, high), strict=True):
            if numbered and np.isfinite(value):
                axes.text(at, top + 1.5, f"{value:.0f}", ha="center", va="bottom", fontsize=8, color=INK)
    axes.axhline(100 / n, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), label="chance", zorder=0)
    axes.set(ylim=(0, 109), xlim=(0.45, n + 0.55), xticks=positions, yticks=range(0, 101, 25))
    axes.tick_params(colors=QUIET, length=0)
    axes.grid(axis="y", color=RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)


def _colours(names: Sequence[str]) -> dict[str, str]:
    more = itertools.cycle(MORE)
    return {name: COLOURS.get(name) or next(more) for name in names}


def _array(values: Values) -> Floats:
    return np.asarray([np.nan if value is None else value for value in values], dtype=np.float64)


@dataclass(frozen=True)
class Theme:
    """Colours of everything but the data, and both ends of the heat maps' colour scale; lines are lighter on a dark page."""

    ink: str
    faint: str
    grid: str
    low: str
    high: str
    on_high: str
    paper: str
    lighten: float


LIGHT = Theme("#3c4043", "#80868b", "#e8eaed", "#f4f7fb", "#0b4f9e", "#ffffff", "#ffffff", 0.0)
DARK = Theme("#dfe2e6", "#9aa0a6", "#3c4043", "#23272e", "#7db7f5", "#0d1116", "#1b1e23", 0.35)

_LINE_COLOURS = {**COLOURS, "lad-unlabelled": MORE[1], "random": COLOURS["lad"], "adversarial": MORE[0], "attention": QUIET}
_LINE_COLOURS |= {"visual": COLOURS["lad"], "text": MORE[0], "model": COLOURS["lad"], "random weights": MORE[0]}
_LINE_COLOURS |= {
    "base": QUIET,
    "fused": COLOURS["lad"],
    "truncated": MORE[0],
    "trained": MORE[1],
    "trained, fused": COLOURS["raw-attention"],
}
_STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"))  # for overlapping lines, and for print without colour
_MORE = MORE[2:]


def draw(chart: Chart, form: Literal["svg", "pdf", "png"], theme: Theme = LIGHT) -> bytes:
    """The chart as the bytes of a file."""
    from matplotlib import rc_context

    settings = {
        "svg.hashsalt": "lad_eval",
        "svg.fonttype": "none",
        "font.size": 9,
        "font.family": "sans-serif",
        "pdf.fonttype": 42,
    }
    with rc_context(settings):
        figure = _figure(chart, theme)
        stream = io.BytesIO()
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}[form]
        figure.savefig(stream, format=form, dpi=160, metadata=metadata, facecolor=theme.paper)
    return stream.getvalue()


def _figure(chart: Chart, theme: Theme) -> Figure:
    from matplotlib.figure import Figure

    count = len(chart.panels)
    across = min(count, 4)
    down = math.ceil(count / across)
    wide = isinstance(chart.panels[0], LinePlot)
    figure = Figure(figsize=((3.6 if wide else 2.7) * across, (2.9 if wide else 2.7) * down), layout="constrained")
    grid: Any = figure.subplots(down, across, squeeze=False)
    for axes, panel in zip(grid.flat, chart.panels, strict=False):
        _charts_draw_panel(axes, panel, theme)
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    return figure


def _charts_draw_panel(axes: Any, panel: Panel, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.set_title(panel.title, loc="left", fontsize=9, color=theme.ink)
    axes.set_xlabel(panel.x_label, color=theme.ink)
    axes.set_ylabel(panel.y_label, color=theme.ink)
    axes.tick_params(colors=theme.ink, labelsize=8)
    axes.spines[:].set_color(theme.faint)
    if isinstance(panel, HeatMap):
        _draw_matrix(axes, panel, theme)
    elif isinstance(panel, DensityPlot):
        _draw_cloud(axes, panel, theme)
    elif isinstance(panel, ScatterPlot):
        _draw_scatter(axes, panel, theme)
    else:
        _draw_lines(axes, panel, theme)


def _scale(theme: Theme, start: float = 0.0) -> Any:
    """The colours from the theme's low end to its high end, from the share `start` of the way."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    whole = LinearSegmentedColormap.from_list("scale", [theme.low, theme.high])
    return LinearSegmentedColormap.from_list("part", [to_hex(whole(start)), theme.high])


def _line_colour(colour: str, theme: Theme) -> str:
    from matplotlib.colors import to_hex, to_rgb

    return to_hex([channel + (1 - channel) * theme.lighten for channel in to_rgb(colour)])


def _draw_matrix(axes: Any, panel: HeatMap, theme: Theme) -> None:
    n = len(panel.ticks)
    axes.imshow(panel.values, cmap=_scale(theme), vmin=panel.low, vmax=panel.high)
    axes.set_xticks(range(n), panel.ticks, rotation=45 if max(map(len, panel.ticks), default=0) > 2 else 0)
    axes.set_yticks(range(n), panel.ticks)
    axes.spines[:].set_visible(False)
    middle = (panel.low + panel.high) / 2
    for (row, column), value in np.ndenumerate(panel.values) if n else ():
        if math.isfinite(value):
            colour = theme.on_high if value > middle else theme.ink
            axes.text(
                column, row, f"{value:.{panel.digits}f}", ha="center", va="center", fontsize=8 if n <= 4 else 6, color=colour
            )


def _draw_cloud(axes: Any, panel: DensityPlot, theme: Theme) -> None:
    shades = _scale(theme, 0.3)  # a single point must be visible in print
    axes.hexbin(panel.x, panel.y, gridsize=22, extent=(0, 1, 0, 1), cmap=shades, mincnt=1, bins="log", linewidths=0.1)
    axes.plot([0, 1], [0, 1], color=theme.faint, linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_scatter(axes: Any, panel: ScatterPlot, theme: Theme) -> None:
    more = iter(_MORE * 4)
    styles = itertools.cycle(_STYLES)
    for group in panel.groups:
        colour = _line_colour(_LINE_COLOURS.get(group.name) or next(more), theme)
        marker, _ = next(styles)
        # Thousands of points are rasterised into one image instead of thousands of shapes.
        axes.scatter(
            group.x, group.y, s=5, color=colour, marker=marker, alpha=0.5, linewidths=0, label=group.name, rasterized=True
        )
    axes.set(xticks=[], yticks=[])
    axes.legend(labelcolor=theme.ink, frameon=False, fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=2)


def _draw_lines(axes: Any, panel: LinePlot, theme: Theme) -> None:
    if panel.log_x:
        axes.set_xscale("log")
    more = iter(_MORE * 4)
    styles = itertools.cycle(_STYLES)
    for line in panel.series:
        colour = _line_colour(_LINE_COLOURS.get(line.name) or next(more), theme)
        marker, dashes = next(styles)
        shape = marker if len(line.x) <= MOST_MARKED else None
        axes.plot(line.x, line.y, color=colour, marker=shape, markersize=4, ls=dashes, linewidth=1.4, label=line.name, alpha=0.9)
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    if panel.chance is not None:
        axes.plot(*panel.chance, color=theme.faint, linestyle=":", linewidth=1, label="chance")
    ticks = sorted({float(x) for line in panel.series for x in line.x})
    if len(ticks) <= MOST_MARKED:
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.minorticks_off()
    axes.set_ylim(0, panel.top)
    axes.grid(axis="y", color=theme.grid, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        labelcolor=theme.ink,
        frameon=False,
        fontsize=7.5,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.22),
        ncols=2,
        handlelength=3,
    )
