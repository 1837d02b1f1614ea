"""What images and positions are called in a report: images by letter, positions by number, so that the two are never mixed up."""

from __future__ import annotations

from lad_eval.tasks.identifiers import identifiers


def image_names(n: int) -> tuple[str, ...]:
    """A, B, C, ... in the order of the data."""
    return identifiers("A..", n)


def position_names(n: int) -> tuple[str, ...]:
    """1, 2, 3, ... in displayed order."""
    return tuple(map(str, range(1, n + 1)))
