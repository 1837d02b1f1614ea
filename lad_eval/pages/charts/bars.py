"""Bars from 0 to 100 %."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from lad_eval.pages.charts.svg import add, drawing, known, markup, percent


def bars(values: Sequence[float], names: Sequence[str], *, x_title: str, label: str, chance: float | None = None) -> Markup:
    """Upright bars with their numbers; from 0 to 100, or to 50 where no bar is higher, which the axis says.

    Args:
        values: in percent.
        names: under the bars.
        x_title: what the bars are.
        label: text for those who cannot see it.
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
    """A lying bar for a share of 100 %, to stand beside its number; nothing for an unknown one."""
    if value is None or not known(value):
        return Markup("")
    root = drawing(100.0, 8.0, f"{label}: {percent(value)} %")
    root.set("preserveAspectRatio", "none")
    root.set("class", "bar")
    add(root, "rect", x=0.0, y=0.0, width=100.0, height=8.0, class_="track")
    add(root, "rect", x=0.0, y=0.0, width=min(max(value, 0.0), 100.0), height=8.0, class_=f"solid {colour}".strip())
    return markup(root)
