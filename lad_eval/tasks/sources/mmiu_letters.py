"""Which image a lettered option names: "B: the third image" means that the letter B stands for image 3."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lad_eval.tasks.identifiers import MAX_CANDIDATES, identifiers

_ORDINALS = {name: number for number, name in enumerate(identifiers("first..", MAX_CANDIDATES), start=1)}
_OPTION = re.compile(r"\s*([A-Z])\s*[:.)]\s*(.*)")
_THING = r"(?:image|picture|photo|photograph)"
_EXACT = re.compile(r"the ([a-z-]+) image")
_WORD = re.compile(rf"(?:the )?([a-z-]+)(?: {_THING})?")
_DIGITS = re.compile(rf"(?:the )?(?:{_THING} ?)?[#(]?(\d+)(?:st|nd|rd|th)?\)?(?: {_THING})?")
_SPEAKS_OF_ORDER = re.compile(
    rf"\b(?:{'|'.join(map(re.escape, _ORDINALS))}|last|previous|next|\d+(?:st|nd|rd|th)) {_THING}s?\b|\b{_THING} ?#?\d+\b"
)
_QUOTED_OPTION = re.compile(r"\b[a-z] ?[:.)] ?the [a-z-]+ image\b")


@dataclass(frozen=True)
class Letters:
    """The options of a question about N images.

    Attributes:
        names: the letter of every position, the first image's first.
        exact: whether every option is exactly an ordinal, "the first image", upper case, spaces and a final point aside.
    """

    names: tuple[str, ...]
    exact: bool


def read_letters(options: str, n: int) -> Letters | None:
    """The options in text, a line each; None unless they name the N images one by one."""
    by_image: dict[int, str] = {}
    exact = True
    found = [match.groups() for line in options.splitlines() if (match := _OPTION.fullmatch(line))]
    if len(found) != n or len(found) != sum(bool(line.strip()) for line in options.splitlines()):
        return None
    for letter, text in found:
        plain = _plain(text)
        number = _image_of(plain)
        if number is None or not 1 <= number <= n or number in by_image or letter in by_image.values():
            return None
        by_image[number] = letter
        exact = exact and _EXACT.fullmatch(plain) is not None
    return Letters(tuple(by_image[number] for number in range(1, n + 1)), exact)


def speaks_of_order(text: str) -> bool:
    """Whether a question names images by their places beside quoting the options, as "more like the first image"."""
    return _SPEAKS_OF_ORDER.search(_QUOTED_OPTION.sub(" ", _plain(text))) is not None


def _image_of(plain: str) -> int | None:
    """1-based number of the image that an option's text names."""
    if match := _DIGITS.fullmatch(plain):
        return int(match[1])
    match = _WORD.fullmatch(plain)
    return _ORDINALS.get(match[1]) if match else None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
