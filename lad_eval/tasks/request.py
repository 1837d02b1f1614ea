"""Samples, permutations and requests; a request is one question to a model."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, runtime_checkable

from lad_eval.errors import PictureError

if TYPE_CHECKING:
    from PIL.Image import Image


Split = Literal["test", "calibration"]


class ImageSource(Protocol):
    """An image that is read or rendered when it is needed; hashable and small."""

    @property
    def digest(self) -> str:
        """Hex digest of the content: of a file's bytes and how they are decoded, or of what determines a rendered image."""

    def load(self) -> Image:
        """The picture in RGB. Raises DataError with the file's name if it cannot be read."""


def text_fault(text: str) -> str | None:
    """Why text cannot be given to a model; None if it can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds {text[error.start]!r}, half of a character that was not decoded; save it as UTF-8"
    return None


@dataclass(frozen=True)
class Sample:
    """One question before any permutation.

    Attributes:
        identifiers: names of the positions, if this sample's own question gives them; None: those of the task.
    """

    id: str
    images: tuple[ImageSource, ...]
    caption: str
    gold: int
    split: Split = "test"
    identifiers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.gold < len(self.images):
            raise ValueError(f"sample {self.id}: gold {self.gold} is not an index of {len(self.images)} images")
        if self.identifiers is not None and not len(set(self.identifiers)) == len(self.identifiers) == len(self.images):
            raise ValueError(f"sample {self.id}: {self.identifiers} do not name {len(self.images)} positions")


class SampleSource(Protocol):
    """Turns data into samples; one module of `lad_eval.tasks.sources` each."""

    @property
    def fingerprint(self) -> str:
        """Hex digest of everything that determines the samples."""

    def samples(self, split: Split, limit: int | None = None) -> Iterator[Sample]:
        """Samples of a split in a fixed order; `limit` only shortens the list."""


@runtime_checkable
class EndlessCalibration(Protocol):
    """A source that can make more calibration samples than its calibration split has."""

    def further_calibration(self) -> Iterator[Sample]:
        """Endless samples after those of the split, in a fixed order; the source's fingerprint does not cover them."""


@contextmanager
def showing(sample_id: str) -> Iterator[None]:
    """While open, a picture that cannot be read is reported with the sample that shows it."""
    try:
        yield
    except PictureError as error:
        raise error.of_sample(sample_id) from None


T = TypeVar("T")


@dataclass(frozen=True)
class Permutation:
    """A displayed order of N images: position `j` shows image `order[j]`."""

    order: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"not a permutation of 0..{len(self.order) - 1}: {self.order}")

    @classmethod
    def identity(cls, n: int) -> Permutation:
        return cls(tuple(range(n)))

    def __len__(self) -> int:
        return len(self.order)

    def __str__(self) -> str:
        return ("" if len(self.order) <= 10 else ".").join(map(str, self.order))

    @property
    def inverse(self) -> Permutation:
        """The permutation whose `order[image]` is that image's position."""
        return Permutation(tuple(sorted(range(len(self.order)), key=self.order.__getitem__)))

    def apply(self, images: Sequence[T]) -> tuple[T, ...]:
        """Images in displayed order."""
        if len(images) != len(self.order):
            raise ValueError(f"{len(images)} images for a permutation of {len(self.order)}")
        return tuple(images[i] for i in self.order)

    def position_of(self, image: int) -> int:
        return self.order.index(image)

    def shifted(self, shift: int) -> Permutation:
        """Cyclic shift of the displayed order: position `j` moves to `(j + shift) mod N`."""
        n = len(self.order)
        return Permutation(tuple(self.order[(j - shift) % n] for j in range(n)))

    def cyclic_shifts(self) -> tuple[Permutation, ...]:
        """All N cyclic shifts, this order first; every image visits every position once."""
        return tuple(self.shifted(s) for s in range(len(self.order)))

    def followed_by(self, turn: Permutation) -> Permutation:
        """The order that is displayed when `turn` is applied to this displayed order: position `j` shows `order[turn[j]]`."""
        return Permutation(turn.apply(self.order))

    def random_orders(self, count: int) -> tuple[Permutation, ...]:
        """This order and `count - 1` other distinct orders of the same images, at most N! in all.

        Every order is permuted in the same random ways (RANDOM_ORDERS_SEED); a smaller `count` gives the first of a larger one.
        """
        return tuple(self.followed_by(turn) for turn in draw_permutations(len(self.order), count, RANDOM_ORDERS_SEED))


RANDOM_ORDERS_SEED = 20250


def draw_permutations(n: int, count: int, seed: int = 42) -> tuple[Permutation, ...]:
    """Identity and `count - 1` other distinct orders, drawn once and shared by all samples.

    At most N! exist, and so at most N! are returned. Seed 42 and N = 4 give 0123, 0312, 1023, 3021,
    3012, as in the released code of LAD (arXiv 2605.11591).
    """
    if n < 1 or count < 1:
        raise ValueError("n and count must be positive")
    generator = random.Random(seed)
    drawn = [Permutation.identity(n)]
    while len(drawn) < min(count, math.factorial(n)):
        candidate = Permutation(tuple(generator.sample(range(n), n)))
        if candidate not in drawn:
            drawn.append(candidate)
    return tuple(drawn)


@dataclass(frozen=True)
class Request:
    """Images in displayed order, the question that follows them, and the candidates' names.

    The answer is a position. `key` is a digest of the content, so that equal requests are run once. `caption` is the part of the
    question that comes from the data and not from the task's prompt; None if it is unknown.
    """

    sample_id: str
    permutation: Permutation
    images: tuple[ImageSource, ...]
    question: str
    identifiers: tuple[str, ...]
    gold_position: int
    split: Split
    caption: str | None = None

    @classmethod
    def of(cls, sample: Sample, permutation: Permutation, question: str, identifiers: tuple[str, ...]) -> Request:
        return cls(
            sample_id=sample.id,
            permutation=permutation,
            images=permutation.apply(sample.images),
            question=question,
            identifiers=identifiers,
            gold_position=permutation.position_of(sample.gold),
            split=sample.split,
            caption=sample.caption,
        )

    def reordered(self, order: Permutation) -> Request:
        """The same question with the sample's images in another displayed order."""
        images = self.permutation.inverse.apply(self.images)
        gold = self.permutation.order[self.gold_position]
        return replace(self, permutation=order, images=order.apply(images), gold_position=order.position_of(gold))

    @cached_property
    def key(self) -> str:
        """SHA-256 hex digest, 32 characters, of sample id, displayed images, question and identifiers."""
        with showing(self.sample_id):
            content = [self.sample_id, [i.digest for i in self.images], self.question, list(self.identifiers)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
