"""Charts as inline SVG, created by an XML writer, so that text cannot become markup; colours are CSS classes of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from lad_eval.evidence.table import Floats
from lad_eval.report.html.text import clean


def drawing(width: float, height: float, label: str) -> Element:
    """An empty SVG element with an accessible label; it shrinks with the page."""
    box = f"0 0 {_written(width)} {_written(height)}"
    return Element("svg", {"viewBox": box, "width": _written(width), "role": "img", "aria-label": clean(label)})


def add(parent: Element, tag: str, text: str | None = None, /, **attributes: object) -> Element:
    """Adds a child; `class_` becomes class, underscores become hyphens. Attributes that are None are omitted."""
    named = {k.rstrip("_").replace("_", "-"): _written(v) for k, v in attributes.items() if v is not None}
    child = SubElement(parent, tag, named)
    if text is not None:
        child.text = clean(text)
    return child


def markup(root: Element) -> Markup:
    """The element as markup, with every text and attribute escaped."""
    return Markup(tostring(root, encoding="unicode"))


def known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def percent(value: float) -> str:
    """A number from 0 to 100 as text."""
    return f"{value:.1f}" if 0 < abs(value) < 9.95 else f"{value:.0f}"


def _written(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else clean(value)


def bars(values: Sequence[float], names: Sequence[str], *, x_title: str, label: str, chance: float | None = None) -> Markup:
    """Vertical bars with their numbers, on an axis from 0 to 100, or to 50 if no bar is higher.

    Args:
        values: in percent.
        names: under the bars.
        x_title: what the bars are.
        label: accessible description.
        chance: height of a dashed line.
    """
    most = 100.0 if max(values) > 50 else 50.0
    step = max(10.0, min(48.0, 320.0 / len(values)))
    roomy = step >= 24
    left, top, tall = 32.0, 14.0, 120.0
    inner = step * len(values)
    root = drawing(left + inner + 52, top + tall + 42, label)

    def y(value: float) -> float:
        return top + tall * (1 - value / most)

    for value in (0.0, most / 2, most):
        add(root, "line", x1=left, x2=left + inner, y1=y(value), y2=y(value), class_="grid")
        add(root, "text", f"{value:.0f}", x=left - 6, y=y(value) + 4, class_="tick end")
    if chance is not None:
        add(root, "line", x1=left, x2=left + inner, y1=y(chance), y2=y(chance), class_="chance")
        add(root, "text", "fair", x=left + inner + 6, y=y(chance) + 4, class_="tick")
    for place, (value, name) in enumerate(zip(values, names, strict=True)):
        x, thick = left + (place + 0.1) * step, 0.8 * step
        group = add(root, "g")
        add(group, "title", f"{name}: {percent(value)} %")
        add(group, "rect", x=x, y=y(value), width=thick, height=max(top + tall - y(value), 0.0), class_="solid")
        if roomy:
            add(group, "text", percent(value), x=x + thick / 2, y=y(value) - 3, class_="number middle low halo")
        if roomy or place % 5 == 0:
            add(root, "text", name, x=x + thick / 2, y=top + tall + 16, class_="tick middle")
    add(root, "text", x_title, x=left + inner / 2, y=top + tall + 36, class_="axis middle")
    return markup(root)


def bar(value: float | None, label: str, *, colour: str = "") -> Markup:
    """A horizontal bar for a share of 100 %, shown next to its number; empty for an unknown share."""
    if value is None or not known(value):
        return Markup("")
    root = drawing(100.0, 8.0, f"{label}: {percent(value)} %")
    root.set("preserveAspectRatio", "none")
    root.set("class", "bar")
    add(root, "rect", x=0.0, y=0.0, width=100.0, height=8.0, class_="track")
    add(root, "rect", x=0.0, y=0.0, width=min(max(value, 0.0), 100.0), height=8.0, class_=f"solid {colour}".strip())
    return markup(root)


WIDTH, HEIGHT, PAD = 300.0, 22.0, 6.0


def interval(value: float | None, low: float | None, high: float | None, *, label: str, colour: str, chance: float) -> Markup:
    """A dot, its 95 % interval as a line, and chance as a dashed line, for a row of a table. Values in points."""
    if value is None or not known(value):
        return Markup("")
    root = drawing(WIDTH, HEIGHT, label)
    root.set("class", "interval")

    def x(points: float) -> float:
        return PAD + (WIDTH - 2 * PAD) * points / 100

    middle = HEIGHT / 2
    for points in (0, 25, 50, 75, 100):
        add(root, "line", x1=x(points), x2=x(points), y1=0.0, y2=HEIGHT, class_="grid")
    add(root, "line", x1=x(chance), x2=x(chance), y1=0.0, y2=HEIGHT, class_="chance")
    group = add(root, "g", class_=f"line {colour}")
    if low is not None and high is not None and known(low) and known(high):
        add(group, "line", x1=x(low), x2=x(high), y1=middle, y2=middle, class_="whisker")
    add(group, "circle", cx=x(value), cy=middle, r=4.5)
    return markup(root)


MOST_NUMBERED = 14
_MIDDLE, _HIGH = 0.6, 0.77  # where the text colour of numbers changes, in dark and in light mode


def heatmap(
    values: Floats,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    row_title: str,
    column_title: str,
    label: str,
    most: float = 100.0,
    cell: tuple[float, float] | None = None,
    diagonal: bool = False,
    digits: int = 0,
    colour: str = "",
) -> Markup:
    """A heat map of a matrix Float[R, C]; unknown values (NaN) are left empty.

    Args:
        values: from 0 to `most`, which gets the strongest colour.
        rows: names, R of them; columns: C.
        row_title: what the rows are; column_title: the columns.
        label: accessible description.
        most: end of the colour scale.
        cell: width and height of a cell; default: by the number of columns.
        diagonal: outlines the cells whose row and column are the same position.
        digits: decimals of the numbers.
        colour: CSS class of the hue; default: the page's own.
    """
    R, C = values.shape
    width, height = cell or _cell(C)
    left, top = 22.0 + 7.0 * max(map(len, rows)), 40.0
    root = drawing(left + C * width + 4, top + R * height + 4, label)
    if colour:
        root.set("class", colour)
    add(root, "text", column_title, x=left + C * width / 2, y=12.0, class_="axis middle")
    middle = top + R * height / 2
    add(root, "text", row_title, x=10.0, y=middle, transform=f"rotate(-90 10 {middle:.1f})", class_="axis middle")
    small = " small" if width < 26 else ""
    for j, name in enumerate(columns):
        add(root, "text", name, x=left + (j + 0.5) * width, y=top - 8, class_=f"tick middle{small}")
    for i, name in enumerate(rows):
        y = top + i * height
        add(root, "text", name, x=left - 6, y=y + height / 2 + 4, class_=f"tick end{small}")
        for j in range(C):
            x, value = left + j * width, float(values[i, j])
            if not known(value):
                add(root, "rect", x=x + 1, y=y + 1, width=width - 2, height=height - 2, class_="unknown")
                continue
            depth = min(max(value / most, 0.0), 1.0) if most > 0 else 0.0
            add(root, "rect", x=x + 1, y=y + 1, width=width - 2, height=height - 2, rx=2.0, class_="cell")
            add(root, "rect", x=x + 1, y=y + 1, width=width - 2, height=height - 2, rx=2.0, class_="heat", fill_opacity=depth)
            if C <= MOST_NUMBERED and height >= 14:
                ink = "high" if depth > _HIGH else "mid" if depth > _MIDDLE else "low"
                text = f"{value:.{digits}f}"
                add(root, "text", text, x=x + width / 2, y=y + height / 2 + 4, class_=f"number middle {ink}{small}")
            if diagonal and i == j:
                add(root, "rect", x=x + 1, y=y + 1, width=width - 2, height=height - 2, rx=2.0, class_="own")
    return markup(root)


def _cell(columns: int) -> tuple[float, float]:
    side = max(11.0, min(44.0, 264.0 / columns))
    return side, side


LEFT, TOP, BOTTOM, GAP = 34.0, 26.0, 44.0, 14.0
MOST_TICKS = 13

Height = Callable[[float], float]


@dataclass(frozen=True)
class ChartLine:
    """A named line; `values` in percent, with gaps where they are unknown. `method`, if given, lets the page hide it."""

    name: str
    values: Sequence[float | None]
    colour: str
    method: str | None = None


def lines(
    series: Sequence[ChartLine],
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
    """A line chart over equally spaced ticks; the vertical axis always runs from 0 to 100.

    Args:
        series: the lines.
        ticks: their names.
        x_title: what the ticks are; y_title: what is shown, in percent.
        label: accessible description.
        chance: height of a dashed line named "chance".
        band: first and last tick of a shaded range, named `band_name`.
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
        shown = ", ".join("–" if v is None or not known(v) else percent(v) for v in line.values)
        add(group, "title", f"{line.name}: {shown}")
        _draw(group, line, x, y, dots=n <= 16)
        add(group, "text", line.name, x=LEFT + inner + 8, y=at + 4, class_="name")
    if chance is not None:
        add(root, "text", "chance", x=LEFT + inner + 8, y=places[-1] + 4, class_="tick")
    return markup(root)


def _draw(group: Element, line: ChartLine, x: Height, y: Height, *, dots: bool) -> None:
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


def _end(line: ChartLine, y: Height) -> float:
    """Height of the line's last known value."""
    for value in reversed(line.values):
        if value is not None and known(value):
            return y(value)
    return y(0.0)


def spread(heights: Sequence[float], top: float, bottom: float) -> list[float]:
    """The heights, moved as little as needed for labels not to overlap, and kept within the bounds if possible."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = [0.0] * len(heights)
    above = top - GAP
    for i in order:
        placed[i] = above = max(heights[i], above + GAP)
    below = max(bottom, top + GAP * (len(heights) - 1)) + GAP
    for i in reversed(order):
        placed[i] = below = min(placed[i], below - GAP)
    return placed
