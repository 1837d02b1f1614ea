"""Keeps calibration and evaluation disjoint by the content of the images, not only by ids or file names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from lad_eval.tasks.request import ImageSource, Sample

T = TypeVar("T")


@dataclass(frozen=True)
class CalibrationCandidates(Generic[T]):
    """Candidates for calibration, from a check that ends once enough were chosen.

    Attributes:
        chosen: at most `count`, whose right images are not evaluated.
        passed_over: those whose right images are evaluated.
        count: number to choose.
    """

    chosen: tuple[T, ...]
    passed_over: tuple[T, ...]
    count: int

    @property
    def filled(self) -> tuple[T, ...]:
        """`count` candidates, filled with `passed_over` if too few were chosen; `tasks.plan` refuses to calibrate on those."""
        return (*self.chosen, *self.passed_over)[: self.count]


def content_digest(image: ImageSource) -> str:
    """Hex digest of the image's content alone.

    `digest` may also cover the name of an image in its data set; the image then has a `content_digest` as well. Files that were
    re-encoded or resized count as other images.
    """
    digest = getattr(image, "content_digest", None)
    return image.digest if digest is None else str(digest)


def right_picture(sample: Sample) -> str:
    """Content digest of a sample's right picture; where its answer is a text, of all its pictures and its question."""
    answer = sample.choices[sample.gold]
    if isinstance(answer, int):
        return content_digest(sample.images[answer])
    content = [sample.caption, *sorted(content_digest(image) for image in sample.images)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def choose_distinct(candidates: Iterable[T], is_evaluated: Callable[[T], bool], count: int) -> CalibrationCandidates[T]:
    """The first candidates whose right picture is not the right picture of an evaluated sample.

    Args:
        candidates: in order of preference; only as many as needed are checked.
        is_evaluated: whether a candidate's right picture is that of an evaluated sample.
        count: number to choose.
    """
    chosen: list[T] = []
    passed_over: list[T] = []
    for candidate in candidates if count > 0 else ():
        (passed_over if is_evaluated(candidate) else chosen).append(candidate)
        if len(chosen) == count:
            break
    return CalibrationCandidates(tuple(chosen), tuple(passed_over), count)


def shared_pictures(calibration: Sequence[Sample], test: Sequence[Sample]) -> int:
    """How many distinct pictures are shown in samples of both splits."""
    return len(shown_pictures(calibration) & shown_pictures(test))


def shown_pictures(samples: Sequence[Sample]) -> set[str]:
    """Content digests of all pictures that the samples show."""
    return {content_digest(image) for sample in samples for image in sample.images}
