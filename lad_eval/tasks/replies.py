"""Which candidate a free-text reply names: strictly, so that what is no clear answer stays without one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_BEFORE = r"(?:(?:the|final|correct|best|answer|choice|option|image|picture|photo|index|number|no|is)\s+)*"
_AFTER = r"(?:\s+(?:image|picture|photo|option|choice|one))?"
_NOISE = re.compile(r"[\s\"'`*_()\[\]{}<>:.,;!#$\\]+")


def position_of(reply: str, identifiers: Sequence[str]) -> int | None:
    """The 0-based position of the identifier that the whole reply amounts to; None if it is anything else.

    Besides the identifier, a reply may hold punctuation, markup and a few words that carry no answer: `3`, `(3)`, `Image 3.`,
    `Answer: **3**`, `The first image`. Letters' case does not matter. A reply that names two candidates, or says more, is no
    answer: `2 or 3`, `Image 3 shows a dog`.
    """
    plain = _NOISE.sub(" ", reply).strip().casefold()
    found = _pattern(tuple(identifiers)).fullmatch(plain)
    if found is None:
        return None
    return [name.casefold() for name in identifiers].index(found["name"])


@lru_cache
def _pattern(identifiers: tuple[str, ...]) -> re.Pattern[str]:
    names = "|".join(re.escape(name.casefold()) for name in sorted(identifiers, key=len, reverse=True))
    return re.compile(f"{_BEFORE}(?P<name>{names}){_AFTER}")
