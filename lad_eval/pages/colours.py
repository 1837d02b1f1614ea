"""One colour a method, the same in every chart of a page; the page's style sheet says which."""

from __future__ import annotations

from collections.abc import Iterable

# The methods of the paper have colours of their own; others take the rest in turn.
OWN = {
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
    return {name: OWN[name] if name in OWN else REST[next(rest) % len(REST)] for name in others}


def of_position(position: int) -> str:
    """Class for a position's line."""
    return f"q{position % 8}"
