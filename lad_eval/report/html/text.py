"""Untrusted text: captions, ids, names. It may contain anything, and must remain text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lad_eval.report.table import interval
from lad_eval.tasks.prompts import identifiers

# Control characters are invisible, and some of them (NUL) invalid in HTML; tab and line breaks become spaces.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_FOLDERS = re.compile(r"(?<![\w:/.])(?:[A-Za-z]:)?[\\/](?:[^\\/:;,'\"\n]*[^\\/:;,'\"\s][\\/])+")
LONGEST = 2000
CAPTION = 400


def clean(text: object) -> str:
    """The text without characters that cannot be encoded as UTF-8 or displayed, at most `LONGEST` characters.

    Characters such as < and & are kept: the template engine, the XML writer and the JSON writer escape them.
    """
    whole = str(text).encode("utf-8", "replace").decode("utf-8")
    return _cut(_CONTROL.sub("\ufffd", whole).strip(), LONGEST)


def caption_text(caption: str) -> str:
    """A caption, clean and at most `CAPTION` characters."""
    return _cut(clean(caption), CAPTION)


def without_paths(text: str) -> str:
    """A message on one line, with absolute paths cut to their last part, since a report is read by others and elsewhere."""
    return _FOLDERS.sub("", " ".join(text.split()))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


SPACE = "\N{NO-BREAK SPACE}"


def part_of(figure: Mapping[str, Any], name: str, part: str) -> float | None:
    """One number of a method's figures, e.g. the low end of the accuracy's interval; None if it is unknown."""
    value = (figure.get(name) or {}).get(part)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def value_of(figure: Mapping[str, Any], name: str) -> float | None:
    return part_of(figure, name, "value")


def bounds(figure: Mapping[str, Any], name: str) -> str:
    """An interval as text, "" if it is unknown."""
    return interval(part_of(figure, name, "low"), part_of(figure, name, "high"))


def share_text(value: float) -> str:
    """A share in whole percent; "0 %" and "100 %" only for exactly none and all."""
    return f"{_digits(value, 0)}{SPACE}%"


def shares_text(first: float, second: float) -> tuple[str, str]:
    """Two shares to compare, with a decimal if whole percents would hide their difference."""
    hidden = round(first) == round(second) and round(first, 1) != round(second, 1)
    digits = 1 if hidden else 0
    return f"{_digits(first, digits)}{SPACE}%", f"{_digits(second, digits)}{SPACE}%"


def _digits(value: float, digits: int) -> str:
    if 0 < value < 0.05:
        return "under 0.1"
    if 99.95 <= value < 100:
        return "over 99.9"
    places = 1 if 0 < value < 0.5 or 99.5 <= value < 100 else digits
    return f"{value + 1e-9:.{places}f}"  # halves are rounded up, as a reader would round the table's numbers


def image_names(n: int) -> tuple[str, ...]:
    """A, B, C, ... in the order of the data."""
    return identifiers("A..", n)


def position_names(n: int) -> tuple[str, ...]:
    """1, 2, 3, ... in displayed order."""
    return tuple(map(str, range(1, n + 1)))


# The methods of the paper have fixed colours; others take the remaining ones in turn.
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
    """CSS class by method."""
    others = list(dict.fromkeys(methods))
    rest = iter(range(len(others)))
    return {name: COLOURS[name] if name in COLOURS else REST[next(rest) % len(REST)] for name in others}


def of_position(position: int) -> str:
    """CSS class for a position's line."""
    return f"q{position % 8}"
