"""A matrix of shares, one hue, the number in every cell as long as there is room for it."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from lad_eval.evidence import Floats
from lad_eval.pages.charts.svg import add, drawing, known, markup

MOST_NUMBERED = 14
_MIDDLE, _HIGH = 0.6, 0.77  # where the ink of numbers changes, in dark and in light mode


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
    """A matrix Float[R, C]; unknown values (NaN) stay empty.

    Args:
        values: from 0 to `most`, which is the deepest colour.
        rows: names, R of them; columns: C.
        row_title: what the rows are; column_title: the columns.
        label: text for those who cannot see it.
        most: end of the colour scale.
        cell: width and height of a cell; default: by the number of columns.
        diagonal: outlines the cells in which row and column are one position.
        digits: decimals of the numbers.
        colour: class of the hue; default: the page's own.
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
