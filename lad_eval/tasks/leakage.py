"""Keeps calibration and evaluation apart by the content of the pictures, not by ids or file names alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from lad_eval.tasks.sample import ImageSource, Sample

T = TypeVar("T")


@dataclass(frozen=True)
class Choice(Generic[T]):
    """Calibration samples that were chosen, and those that were passed over because their right picture is evaluated."""

    chosen: tuple[T, ...]
    passed_over: tuple[T, ...]


def content_digest(image: ImageSource) -> str:
    """Hex digest of what the picture shows alone.

    `digest` may also hold the name by which a data set knows a picture; an image then has a `content_digest` beside it. Files
    that were encoded anew or resized count as other pictures.
    """
    own = getattr(image, "content_digest", None)
    return image.digest if own is None else str(own)


def right_picture(sample: Sample) -> str:
    """Content digest of a sample's right picture."""
    return content_digest(sample.images[sample.gold])


def choose_apart(
    candidates: Iterable[T], picture: Callable[[T], str], evaluated: Collection[str], count: int | None = None
) -> Choice[T]:
    """The first candidates whose right picture is not the right picture of an evaluated sample.

    Args:
        candidates: in order of preference; no more are looked at than are needed.
        picture: content digest of a candidate's right picture.
        evaluated: content digests of the right pictures of evaluated samples.
        count: at most so many; None: all.
    """
    chosen: list[T] = []
    passed_over: list[T] = []
    if count == 0:
        return Choice((), ())
    for candidate in candidates:
        (passed_over if picture(candidate) in evaluated else chosen).append(candidate)
        if len(chosen) == count:
            break
    return Choice(tuple(chosen), tuple(passed_over))


def shared_pictures(calibration: Sequence[Sample], test: Sequence[Sample]) -> int:
    """How many distinct pictures are shown in samples of both splits."""
    return len(_shown(calibration) & _shown(test))


def _shown(samples: Sequence[Sample]) -> set[str]:
    return {content_digest(image) for sample in samples for image in sample.images}
