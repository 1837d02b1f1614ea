"""A value with its interval on an axis from 0 to 100."""

from __future__ import annotations

from markupsafe import Markup

from lad_eval.pages.charts.svg import add, drawing, known, markup

WIDTH, HEIGHT, PAD = 300.0, 22.0, 6.0


def interval(value: float | None, low: float | None, high: float | None, *, label: str, colour: str, chance: float) -> Markup:
    """A dot, its 95 % interval as a stroke, and chance as a dashed line; for a row of a table. Values in points."""
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
