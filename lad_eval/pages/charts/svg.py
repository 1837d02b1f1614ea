"""The little of SVG that the charts need."""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from lad_eval.pages.text import clean


def drawing(width: float, height: float, label: str) -> Element:
    """An empty picture with a text for those who cannot see it; it shrinks with the page."""
    box = f"0 0 {_written(width)} {_written(height)}"
    return Element("svg", {"viewBox": box, "width": _written(width), "role": "img", "aria-label": clean(label)})


def add(parent: Element, tag: str, text: str | None = None, /, **attributes: object) -> Element:
    """A child; `class_` stands for class, underscores for hyphens. Attributes that are None are left out."""
    named = {k.rstrip("_").replace("_", "-"): _written(v) for k, v in attributes.items() if v is not None}
    child = SubElement(parent, tag, named)
    if text is not None:
        child.text = clean(text)
    return child


def markup(root: Element) -> Markup:
    """The picture, ready for a page: every text and attribute in it is escaped."""
    return Markup(tostring(root, encoding="unicode"))


def known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def percent(value: float) -> str:
    """A number from 0 to 100 as people read it."""
    return f"{value:.1f}" if 0 < abs(value) < 9.95 else f"{value:.0f}"


def _written(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else clean(value)
