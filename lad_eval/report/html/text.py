"""Text that others wrote: captions, ids, names. It may hold anything, and must stay text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lad_eval.report.table import interval
from lad_eval.tasks.prompts import identifiers

# Control characters have no look, and some of them (NUL) no place in HTML; tab and line breaks become spaces.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_FOLDERS = re.compile(r"(?<![\w:/.])(?:[A-Za-z]:)?[\\/](?:[^\\/:;,'\"\n]*[^\\/:;,'\"\s][\\/])+")
LONGEST = 2000
CAPTION = 400


def clean(text: object) -> str:
    """The text with nothing in it that cannot be written as UTF-8 or shown, at most `LONGEST` characters.

    Marks such as < and & stay: escaping is the business of the template engine, the XML writer and the JSON writer.
    """
    whole = str(text).encode("utf-8", "replace").decode("utf-8")
    return _cut(_CONTROL.sub("\ufffd", whole).strip(), LONGEST)


def caption_text(caption: str) -> str:
    """A caption, clean and at most `CAPTION` characters."""
    return _cut(clean(caption), CAPTION)


def without_paths(text: str) -> str:
    """A message on one line, absolute paths cut to their last part: a report is read elsewhere, and by others."""
    return _FOLDERS.sub("", " ".join(text.split()))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


SPACE = "\N{NO-BREAK SPACE}"


def part_of(figure: Mapping[str, Any], name: str, part: str) -> float | None:
    """One number of a figure, e.g. the low end of the accuracy's interval; None where it is not known."""
    value = (figure.get(name) or {}).get(part)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def value_of(figure: Mapping[str, Any], name: str) -> float | None:
    return part_of(figure, name, "value")


def bounds(figure: Mapping[str, Any], name: str) -> str:
    """An interval, "" where it is not known."""
    return interval(part_of(figure, name, "low"), part_of(figure, name, "high"))


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


def image_names(n: int) -> tuple[str, ...]:
    """A, B, C, ... in the order of the data."""
    return identifiers("A..", n)


def position_names(n: int) -> tuple[str, ...]:
    """1, 2, 3, ... in displayed order."""
    return tuple(map(str, range(1, n + 1)))


# The methods of the paper have colours of their own; others take the rest in turn.
COLOURS = {
    "vanilla": "c0",
    "pride": "c1",
    "lad": "c2",
    "raw-attention": "c3",
    "purified-attention": "c4",
    "permutation-average": "c5",
}
REST = ("c6", "c7", "c8", "c9")


def colours_of(methods: Iterable[str]) -> dict[str, str]:
    """Class of the style sheet by method."""
    others = list(dict.fromkeys(methods))
    rest = iter(range(len(others)))
    return {name: COLOURS[name] if name in COLOURS else REST[next(rest) % len(REST)] for name in others}


def of_position(position: int) -> str:
    """Class for a position's line."""
    return f"q{position % 8}"
