"""An application's questions and calibration samples, checked and made into samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lad_eval.errors import UserError
from lad_eval.methods import make_method
from lad_eval.ranking.images import ImageLike, image_source
from lad_eval.tasks.request import ImageSource, Sample, text_fault

if TYPE_CHECKING:
    from lad_eval.tasks.request import Split

_UNLABELLED = ("lad-unlabelled", "purified-attention")
"""Methods that calibrate without the right answers."""

Question = tuple[Sequence[ImageLike], str]
"""Images and a caption."""
LabelledQuestion = tuple[Sequence[ImageLike], str, int]
"""Images, a caption, and the index of the image that it describes."""


def calibration_samples(questions: Iterable[Question | LabelledQuestion], method: str) -> list[Sample]:
    """Samples that a method calibrates on, numbered in the order given.

    Raises:
        UserError: one is not (images, caption) or (images, caption, index), a label is missing, or an image cannot be read.
    """
    return [_sample(f"Sample {index}", *_unpacked(index, question, method)) for index, question in _numbered(questions)]


def questions_to_rank(questions: Iterable[Question], sizes: Sequence[int]) -> list[Sample]:
    """Samples that are ranked, numbered in the order given; the image marked as right has no meaning.

    Args:
        questions: images and a caption each.
        sizes: the numbers of images that can be ranked.

    Raises:
        UserError: one is not (images, caption), has another number of images, or an image cannot be read.
    """
    samples = []
    for index, pair in _numbered(questions):
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise UserError(f"Question {index} must be (images, caption).")
        images, caption = _images(pair[0]), pair[1]
        if len(images) not in sizes:
            known = " or ".join(map(str, sizes))
            raise UserError(f"There are {len(images)} images; this ranker was calibrated for {known}: calibrate for as many.")
        samples.append(_sample(f"Question {index}", images, caption, 0, split="test"))
    return samples


def _numbered(samples: Any) -> Iterable[tuple[int, Any]]:
    if isinstance(samples, str | bytes | dict) or not isinstance(samples, Iterable):
        raise UserError(f"Expected a list of (images, caption, ...), not {type(samples).__name__}.")
    return enumerate(samples)


def _images(images: Any) -> Sequence[ImageLike]:
    if isinstance(images, str | bytes | dict) or not isinstance(images, Iterable):
        raise UserError(f"Images must be a list of paths or Pillow images, not {type(images).__name__}.")
    return list(images)


def _unpacked(index: int, sample: Any, method: str) -> tuple[Any, Any, int]:
    if not isinstance(sample, Sequence) or isinstance(sample, str) or len(sample) not in (2, 3):
        raise UserError(f"Sample {index} must be (images, caption, index of the right image).")
    if len(sample) == 3:
        right = sample[2]
        if isinstance(right, bool) or not isinstance(right, int | np.integer):
            raise UserError(f"Sample {index}: the index of the right image must be a whole number, not {right!r}.")
        return sample[0], sample[1], int(right)
    if make_method(method).calibrates and method.partition("(")[0].rpartition("+")[2] not in _UNLABELLED:
        raise UserError(
            f"{method} calibrates on right answers, and a sample has none: give (images, caption, index of the right image), "
            "or use lad-unlabelled."
        )
    return sample[0], sample[1], 0  # any image may serve as the right one: only its visit to every position is checked


def _sample(name: str, images: Any, caption: Any, right: int, *, split: Split = "calibration") -> Sample:
    sources: tuple[ImageSource, ...] = tuple(map(image_source, _images(images)))
    n = len(sources)
    if n < 2:
        raise UserError(f"{name}: there {'is' if n == 1 else 'are'} {n} image{'s' * (n != 1)}; ranking needs 2 or more.")
    if not 0 <= right < n:
        raise UserError(f"{name}: the right image has index {right}, and there are {n} images.")
    if not isinstance(caption, str) or not caption.strip():
        raise UserError(f"{name}: the caption is {'empty' if isinstance(caption, str) else 'not text'}.")
    if (fault := text_fault(caption)) is not None:
        raise UserError(f"{name}: the caption {fault}.")
    return Sample(id=name, images=sources, caption=caption, gold=right, split=split)
