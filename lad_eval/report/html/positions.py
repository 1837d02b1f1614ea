"""Charts of recall by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from markupsafe import Markup

from lad_eval.report.html.charts import add, drawing, known, markup, percent, spread

Values = Sequence[float | None]
MOST_NUMBERED = 8
BELOW = 24.0  # space below 0 for the numbers of points there
_OVER, _UNDER = 12.0, 21.0  # from an interval's end, whose round cap adds 3.5, to the baseline of a number


@dataclass(frozen=True)
class Recall:
    """One method's recall by position in percent, with the bounds of its intervals; None if unknown."""

    name: str
    values: Values
    low: Values
    high: Values
    colour: str


def positions(series: Sequence[Recall], *, chance: float, label: str, width: float, height: float = 300.0) -> Markup:
    """A chart of one or two methods, each named at the end of its line; the vertical axis always runs from 0 to 100.

    Args:
        series: the methods, N positions each.
        chance: height of a dashed line.
        label: accessible description.
        width: of the drawing; height: likewise.
    """
    n = len(series[0].values)
    right = 20.0 + 7.4 * max(len(name) for name in ("chance", *(one.name for one in series)))
    frame = _Frame(n, left=36.0, top=28.0, inner=width - 36.0 - right, tall=height - 28.0 - BELOW - 44.0)
    root = drawing(width, height, label)
    _ground(root, frame, (0, 25, 50, 75, 100), chance)
    for place in range(n):
        if n <= 13 or place % 2 == 0:
            add(root, "text", str(place + 1), x=frame.x(place), y=frame.bottom + BELOW + 16, class_="tick middle")
    add(root, "text", "position of the right image", x=36.0 + frame.inner / 2, y=height - 6, class_="axis middle")
    ends = [next((frame.y(v) for v in reversed(one.values) if v is not None), frame.bottom) for one in series]
    # Reversed, so that of two lines with equal ends the later is labelled above, as its numbers are.
    *names, at_chance = spread([*ends[::-1], frame.y(chance)], frame.top, frame.bottom)
    for number, (one, at) in enumerate(zip(series, names[::-1], strict=True)):
        group = _method(root, frame, one, radius=4.5)
        add(group, "text", one.name, x=frame.right + 10, y=at + 4, class_="name")
        if n <= MOST_NUMBERED:
            _numbers(group, frame, one, [(other, i < number) for i, other in enumerate(series) if i != number])
    add(root, "text", "chance", x=frame.right + 10, y=at_chance + 4, class_="tick")
    return markup(root)


def multiple(one: Recall, against: Recall | None, *, chance: float, label: str) -> Markup:
    """One of many small charts: a method with its intervals, in front of the line of a reference method."""
    n = len(one.values)
    width, height = 216.0, 150.0
    frame = _Frame(n, left=30.0, top=10.0, inner=width - 38.0, tall=height - 10.0 - 26.0)
    root = drawing(width, height, label)
    _ground(root, frame, (0, 50, 100), chance)
    for place in range(n):
        if n <= 8 or place % 3 == 0:
            add(root, "text", str(place + 1), x=frame.x(place), y=height - 6, class_="tick middle")
    if against is not None:
        _line(add(root, "g", class_=f"line back {against.colour}"), frame, against)
    _method(root, frame, one, radius=3.2)
    return markup(root)


@dataclass(frozen=True)
class _Frame:
    """Coordinates of positions and percentages."""

    n: int
    left: float
    top: float
    inner: float
    tall: float

    @property
    def right(self) -> float:
        return self.left + self.inner

    @property
    def bottom(self) -> float:
        return self.top + self.tall

    def x(self, place: float) -> float:
        return self.left + self.inner * (0.05 + 0.9 * place / max(self.n - 1, 1))

    def y(self, value: float) -> float:
        return self.top + self.tall * (1 - value / 100)


def _ground(root: Element, frame: _Frame, ticks: Sequence[int], chance: float) -> None:
    for value in ticks:
        add(root, "line", x1=frame.left, x2=frame.right, y1=frame.y(value), y2=frame.y(value), class_="grid")
        sign = "\N{NO-BREAK SPACE}%" if value == 100 and frame.left > 32 else ""
        add(root, "text", f"{value}{sign}", x=frame.left - 7 + (12 if sign else 0), y=frame.y(value) + 4, class_="tick end halo")
    add(root, "line", x1=frame.left, x2=frame.right, y1=frame.y(chance), y2=frame.y(chance), class_="chance")


def _method(root: Element, frame: _Frame, one: Recall, *, radius: float) -> Element:
    group = add(root, "g", class_=f"line {one.colour}")
    shown = ", ".join("–" if v is None else f"{place + 1}: {percent(v)} %" for place, v in enumerate(one.values))
    add(group, "title", f"{one.name}, by position: {shown}")
    for place, (low, high) in enumerate(zip(one.low, one.high, strict=True)):
        if low is not None and high is not None:
            x = frame.x(place)
            add(group, "line", x1=x, x2=x, y1=frame.y(low), y2=frame.y(high), class_="span")
    _line(group, frame, one)
    for place, value in enumerate(one.values):
        if value is not None:
            add(group, "circle", cx=frame.x(place), cy=frame.y(value), r=radius)
    return group


def _line(group: Element, frame: _Frame, one: Recall) -> None:
    """Straight lines between adjacent known values."""
    stroke: list[str] = []
    for place, value in [*enumerate(one.values), (-1, None)]:
        if value is not None:
            stroke.append(f"{frame.x(place):.1f},{frame.y(value):.1f}")
        else:
            if len(stroke) > 1:
                add(group, "polyline", points=" ".join(stroke))
            stroke = []


def _numbers(group: Element, frame: _Frame, one: Recall, others: Sequence[tuple[Recall, bool]]) -> None:
    """The values at the points: above all intervals of a position for the upper one, below all of them for the lower.

    Each of `others` comes with whether `one` is above it if both are equal.
    """

    def upper(place: int, value: float) -> bool:
        there = [(v, above) for other, above in others if (v := other.values[place]) is not None]
        return all(value > v or (value == v and above) for v, above in there)

    for place, value in enumerate(one.values):
        if value is None or not known(value):
            continue
        there = (one, *(other for other, _ in others))
        drawn = [end for recall in there for end in (recall.low[place], recall.values[place], recall.high[place])]
        heights = [frame.y(end) for end in drawn if end is not None and known(end)]
        y = min(heights) - _OVER if upper(place, value) else max(heights) + _UNDER
        add(group, "text", percent(value), x=frame.x(place), y=y, class_="value middle halo")
