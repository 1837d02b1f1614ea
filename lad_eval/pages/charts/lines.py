"""Lines from 0 to 100 %, each named at its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from markupsafe import Markup

from lad_eval.pages.charts.svg import add, drawing, known, markup, percent

LEFT, TOP, BOTTOM, GAP = 34.0, 26.0, 44.0, 14.0
MOST_TICKS = 13

Height = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """A named line; `values` in percent, unknown ones break it. `method` lets the page hide it."""

    name: str
    values: Sequence[float | None]
    colour: str
    method: str | None = None


def lines(
    series: Sequence[Line],
    ticks: Sequence[str],
    *,
    x_title: str,
    y_title: str,
    label: str,
    chance: float | None = None,
    band: tuple[int, int] | None = None,
    band_name: str = "",
    width: float = 420.0,
) -> Markup:
    """A chart of lines over equally spaced places; the vertical axis always runs from 0 to 100.

    Args:
        series: the lines.
        ticks: names of the places.
        x_title: what the places are; y_title: what is shown, in percent.
        label: text for those who cannot see it.
        chance: height of a dashed line named "chance".
        band: first and last place of a shaded stretch, named `band_name`.
        width: of the drawing.
    """
    right = 16.0 + 6.6 * max(len(name) for name in ("chance", *(line.name for line in series)))
    height = max(270.0, TOP + BOTTOM + GAP * (len(series) + 2))
    inner, tall, n = width - LEFT - right, height - TOP - BOTTOM, len(ticks)

    def x(place: float) -> float:
        return LEFT + inner * ((place + 0.5) / n if n < 3 else 0.04 + 0.92 * place / (n - 1))

    def y(value: float) -> float:
        return TOP + tall * (1 - value / 100)

    root = drawing(width, height, label)
    if band is not None:
        start, end = max(x(band[0] - 0.5), LEFT), min(x(band[1] + 0.5), LEFT + inner)
        add(root, "rect", x=start, y=TOP, width=end - start, height=tall, class_="band")
        add(root, "text", band_name, x=end, y=TOP - 6, class_="tick end")
    for value in (0, 25, 50, 75, 100):
        add(root, "line", x1=LEFT, x2=LEFT + inner, y1=y(value), y2=y(value), class_="grid")
        add(root, "text", str(value), x=LEFT - 6, y=y(value) + 4, class_="tick end")
    add(root, "text", y_title, x=0.0, y=12.0, class_="axis")
    every = -(-n // MOST_TICKS)
    for place in range(0, n, every):
        add(root, "text", ticks[place], x=x(place), y=TOP + tall + 18, class_="tick middle")
    add(root, "text", x_title, x=LEFT + inner / 2, y=TOP + tall + 38, class_="axis middle")
    if chance is not None:
        add(root, "line", x1=LEFT, x2=LEFT + inner, y1=y(chance), y2=y(chance), class_="chance")
    ends = [_end(line, y) for line in series] + ([] if chance is None else [y(chance)])
    places = spread(ends, TOP, TOP + tall)
    for line, at in zip(series, places[: len(series)], strict=True):
        group = add(root, "g", class_=f"line {line.colour}", data_method=line.method)
        told = ", ".join("–" if v is None or not known(v) else percent(v) for v in line.values)
        add(group, "title", f"{line.name}: {told}")
        _draw(group, line, x, y, dots=n <= 16)
        add(group, "text", line.name, x=LEFT + inner + 8, y=at + 4, class_="name")
    if chance is not None:
        add(root, "text", "chance", x=LEFT + inner + 8, y=places[-1] + 4, class_="tick")
    return markup(root)


def _draw(group: Element, line: Line, x: Height, y: Height, *, dots: bool) -> None:
    runs: list[list[tuple[float, float]]] = [[]]
    for place, value in enumerate(line.values):
        if value is None or not known(value):
            runs.append([])
        else:
            runs[-1].append((x(place), y(value)))
    for run in runs:
        if len(run) > 1:
            add(group, "polyline", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in run))
        if dots or len(run) == 1:
            for px, py in run:
                add(group, "circle", cx=px, cy=py, r=3.0)


def _end(line: Line, y: Height) -> float:
    """Height of the line's last known value."""
    for value in reversed(line.values):
        if value is not None and known(value):
            return y(value)
    return y(0.0)


def spread(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """The heights moved as little as needed for names not to lie on each other, within the bounds where they suffice."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = [0.0] * len(heights)
    above = top - GAP
    for i in order:
        placed[i] = above = max(heights[i], above + GAP)
    below = max(bottom, top + GAP * (len(heights) - 1)) + GAP
    for i in reversed(order):
        placed[i] = below = min(placed[i], below - GAP)
    return placed
