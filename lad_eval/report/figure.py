"""A picture of position bias: how often the right image is found, by its position."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lad_eval.errors import UserError
from lad_eval.evidence import Floats

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
"""Methods in one panel; more get a panel each."""
MOST_NUMBERED = 24
"""Bars of a panel that carry their numbers."""

Values = Sequence[float | None]


@dataclass(frozen=True)
class PositionBars:
    """Recall of one method by position in points, with the bounds of its 95 % intervals; None where unknown."""

    name: str
    values: Values
    low: Values
    high: Values


def draw_positions(methods: Sequence[PositionBars], title: str, subtitle: str, out: Path) -> None:
    """Draws bars of recall by position into a picture file (.svg, .png, .pdf).

    Args:
        methods: N positions each.
        title: of the picture, what it shows.
        subtitle: below the title, what it was measured on.
        out: the file.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    together = len(methods) <= MOST_TOGETHER
    panels = [list(methods)] if together else [[method] for method in methods]
    across = min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    colours = _colours([method.name for method in methods])
    wide = max(7.0, min(14.0, 1.4 + 0.36 * len(methods[0].values) * len(methods))) if together else 3.3 * across
    # No date and no random ids in the file: drawing the same figures again gives the same bytes.
    with rc_context({"svg.hashsalt": "lad_eval", "font.size": 9, "text.color": INK, "axes.labelcolor": INK}):
        layout = ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.1)
        figure = Figure(figsize=(wide, 4.1 if together else 0.9 + 2.1 * down), layout=layout)
        figure.suptitle("\n".join(textwrap.wrap(title, int(10.5 * wide))), x=0.02, ha="left", fontsize=12.5, fontweight="bold")
        grid: Any = figure.subplots(down, across, squeeze=False, sharey=True)
        for place, (axes, shown) in enumerate(zip(grid.flat, panels, strict=False)):
            _draw_panel(axes, shown, colours)
            axes.set_title(subtitle if together else shown[0].name, loc="left", fontsize=9.5, color=QUIET if together else INK)
            if place % across == 0:
                axes.set_ylabel("found (%)")
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        if together:
            grid.flat[0].set_xlabel("position of the right image", loc="left")
            grid.flat[0].legend(frameon=False, ncols=len(methods) + 1, loc="upper left", bbox_to_anchor=(-0.015, -0.11))
        else:
            figure.supxlabel(f"position of the right image; {subtitle}", x=0.02, ha="left", fontsize=9, color=QUIET)
        try:
            figure.savefig(out, dpi=160, metadata={"Date": None} if out.suffix == ".svg" else None)
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot draw into {out}: {error}.") from error


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
        none = values == 0  # a bar of no height would look like one that is missing
        axes.hlines(np.full(none.sum(), 0.7), x[none] - 0.45 * width, x[none] + 0.45 * width, colour, linewidth=3)
        axes.vlines(x, low, high, colors="white", linewidth=3)  # so that the interval shows on a dark bar
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
