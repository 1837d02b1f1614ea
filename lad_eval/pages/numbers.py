"""Figures of `metrics.json` as the page writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SPACE = "\N{NO-BREAK SPACE}"


def part_of(figure: Mapping[str, Any], name: str, part: str) -> float | None:
    """One number of a figure, e.g. the low end of the accuracy's interval; None where it is not known."""
    value = (figure.get(name) or {}).get(part)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def value_of(figure: Mapping[str, Any], name: str) -> float | None:
    return part_of(figure, name, "value")


def points(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def bounds(figure: Mapping[str, Any], name: str) -> str:
    """An interval, "" where it is not known."""
    low, high = part_of(figure, name, "low"), part_of(figure, name, "high")
    return "" if low is None or high is None else f"[{low:.1f}, {high:.1f}]"


def p_value(value: float | None) -> str:
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def share_text(value: float) -> str:
    """A share in whole percent; never "0 %" or "100 %" of what is a little more than none or less than all."""
    return f"{_digits(value, 0)}{SPACE}%"


def shares_text(first: float, second: float) -> tuple[str, str]:
    """Two shares that are compared: with a decimal where whole percents would hide that they differ."""
    hidden = round(first) == round(second) and round(first, 1) != round(second, 1)
    digits = 1 if hidden else 0
    return f"{_digits(first, digits)}{SPACE}%", f"{_digits(second, digits)}{SPACE}%"


def _digits(value: float, digits: int) -> str:
    if 0 < value < 0.05:
        return "under 0.1"
    if 99.95 <= value < 100:
        return "over 99.9"
    places = 1 if 0 < value < 0.5 or 99.5 <= value < 100 else digits
    return f"{value + 1e-9:.{places}f}"  # halves up, as readers round the table's figures
