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
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from lad_eval.errors import PictureError, UserError

if TYPE_CHECKING:
    from PIL.Image import Image


Split = Literal["test", "calibration"]
AnswerKind = Literal["images", "texts", "mixed"]
"""What the options of a sample are; "mixed": images and texts, such as "None of the choices"."""
Labelling = Literal["order", "places", "names"]
"""What another order moves where every image has its name before it: images through names that stay ("order"), images with
their names ("places"), or names alone ("names")."""


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


Option = int | str
"""An answer to choose: an image, by its index in the sample, or a text."""


class Bound(NamedTuple):
    """Why a sample cannot be shown in other orders; empty where it can.

    Attributes:
        images: why its images must keep their order, such as a question that names one by its place.
        options: why its options must keep their letters, such as an option that names others by their letters.
    """

    images: str = ""
    options: str = ""


UNBOUND = Bound()


@dataclass(frozen=True)
class Sample:
    """One question before any permutation.

    Attributes:
        gold: index of the right option.
        identifiers: names of the positions, if this sample's own question gives them; None: those of the task.
        options: the N answers to choose from; None: every image, in the data's order.
        fixed: indices of images that keep their places. Where options are images, all other images do.
        bound: why it cannot be shown in other orders.
        cluster: what it shares with samples that depend on it, such as a question with its unanswerable twin; None: it has none.
    """

    id: str
    images: tuple[ImageSource, ...]
    caption: str
    gold: int
    split: Split = "test"
    identifiers: tuple[str, ...] | None = None
    options: tuple[Option, ...] | None = None
    fixed: tuple[int, ...] = ()
    bound: Bound = UNBOUND
    cluster: str | None = None

    def __post_init__(self) -> None:
        n, what = len(self.choices), "images" if self.options is None else "options"
        if not 0 <= self.gold < n:
            raise ValueError(f"sample {self.id}: gold {self.gold} is not an index of {n} {what}")
        if self.identifiers is not None and not len(set(self.identifiers)) == len(self.identifiers) == n:
            raise ValueError(f"sample {self.id}: {self.identifiers} do not name {n} positions")
        named = [*self.fixed, *(option for option in self.choices if isinstance(option, int))]
        if len(set(named)) < len(named) or not all(0 <= image < len(self.images) for image in named):
            raise ValueError(
                f"sample {self.id}: options and fixed images must be different ones of its {len(self.images)} images"
            )

    @property
    def choices(self) -> tuple[Option, ...]:
        """The N options, also where they are all images."""
        return tuple(range(len(self.images))) if self.options is None else self.options

    @property
    def kind(self) -> AnswerKind:
        """What its options are."""
        texts = sum(isinstance(option, str) for option in self.choices)
        return "images" if not texts else "texts" if texts == len(self.choices) else "mixed"

    @property
    def movable(self) -> tuple[int, ...]:
        """Indices, ascending, of the images that other orders move: the options, or, if these are texts, all but `fixed`."""
        if self.kind == "texts":
            return tuple(image for image in range(len(self.images)) if image not in self.fixed)
        return tuple(sorted(option for option in self.choices if isinstance(option, int)))

    def displayed(self, order: Permutation, image_order: Permutation | None = None) -> tuple[ImageSource, ...]:
        """All images in displayed order, those that are not movable in their own places.

        Args:
            order: of the options; images that are options stand in this order.
            image_order: of the movable images, where the options are texts; None: as in the data.
        """
        choices, movable = order.apply(self.choices), self.movable
        shown = movable if image_order is None else image_order.apply(movable)
        if self.kind != "texts":
            shown = tuple(option for option in choices if isinstance(option, int))
        place_of = dict(zip(movable, shown, strict=True))
        return tuple(self.images[place_of.get(place, place)] for place in range(len(self.images)))

    def option_texts(self, order: Permutation) -> tuple[str, ...]:
        """What the question calls each option, in displayed order; an image by its displayed place, "image 2"."""
        places = iter(self.movable)
        return tuple(o if isinstance(o, str) else f"image {next(places) + 1}" for o in order.apply(self.choices))


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


class Arrangement(NamedTuple):
    """How a sample is displayed; the two orders of `Sample.displayed`."""

    options: Permutation
    images: Permutation | None = None


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


def draw_arrangements(n: int, movable: int, count: int, seed: int) -> tuple[Arrangement, ...]:
    """`count` arrangements of n texts and of movable images, each order drawn by itself; the first changes nothing.

    They are distinct, or, where there are fewer, repeated in turn.
    """
    generator = random.Random(f"arrangements-1/{seed}")
    drawn = [Arrangement(Permutation.identity(n), Permutation.identity(movable))]
    while len(drawn) < min(count, math.factorial(n) * math.factorial(movable)):
        options, images = (Permutation(tuple(generator.sample(range(size), size))) for size in (n, movable))
        if (candidate := Arrangement(options, images)) not in drawn:
            drawn.append(candidate)
    return tuple(drawn[turn % len(drawn)] for turn in range(count))


@dataclass(frozen=True)
class Request:
    """Images in displayed order, the question that follows them, and the candidates' names.

    The answer is a position. `key` is a digest of the content, so that equal requests are run once. `caption` is the part of the
    question that comes from the data and not from the task's prompt; None if it is unknown.

    Where images are labelled, a position is what the images move through: a place of the prompt (`labelling` "order", and
    "places", where the image's own name is the position's identifier), or a name ("names", where images stay). So
    `permutation`, `gold_position` and the columns of evidence are by place or by name, as the figures over positions are.

    Attributes:
        permutation: of the options: position `j` is option `permutation.order[j]`.
        images: all of them, as displayed.
        options: what the question calls each position; None where every image is an option.
        image_order: of the movable images, where the options are texts; None: the data's.
        candidates: where in `images` the image of each position stands; (): an option is a text; None: every image, in order.
        labelling: what another order moves where images are labelled; None: they are not, see `labels`.
        repeat: number of the repetition of an otherwise equal request, 0 for the first.
    """

    sample_id: str
    permutation: Permutation
    images: tuple[ImageSource, ...]
    question: str
    identifiers: tuple[str, ...]
    gold_position: int
    split: Split
    caption: str | None = None
    options: tuple[str, ...] | None = None
    image_order: Permutation | None = None
    candidates: tuple[int, ...] | None = None
    labelling: Labelling | None = None
    repeat: int = 0

    @classmethod
    def of(
        cls,
        sample: Sample,
        permutation: Permutation,
        question: str,
        identifiers: tuple[str, ...],
        image_order: Permutation | None = None,
        labelling: Labelling | None = None,
    ) -> Request:
        """A sample's question in an arrangement.

        Args:
            sample: to show.
            permutation: of the options.
            question: that follows the images.
            identifiers: of the positions, as the question lists them.
            image_order: of the movable images, where the options are texts; None: as in the data.
            labelling: what the permutation moves where images are labelled; all images are options then.
        """
        plain = sample.options is None
        if labelling == "names":
            named = cls.of(sample, Permutation.identity(len(permutation)), question, identifiers, None, labelling="order")
            return replace(named, labelling=labelling, candidates=named.permutation.order).reordered(permutation)
        return cls(
            sample_id=sample.id,
            permutation=permutation,
            images=sample.displayed(permutation, image_order),
            question=question,
            identifiers=permutation.apply(identifiers) if labelling == "places" else identifiers,
            gold_position=permutation.position_of(sample.gold),
            split=sample.split,
            caption=sample.caption,
            options=None if plain else sample.option_texts(permutation),
            image_order=image_order,
            candidates=None if plain else sample.movable if sample.kind == "images" else (),
            labelling=labelling,
        )

    @property
    def places(self) -> tuple[int, ...] | None:
        """Where in `images` the image of each position stands; None if an option is a text."""
        return tuple(range(len(self.images))) if self.candidates is None else self.candidates or None

    @property
    def labels(self) -> tuple[str, ...]:
        """The text before each image, as displayed: "Image 1:"; () where images are not labelled."""
        if self.labelling is None or self.places is None:
            return ()
        name_at = dict(zip(self.places, self.identifiers, strict=True))
        return tuple(f"Image {name_at[place]}:" for place in range(len(self.images)))

    @property
    def listed_identifiers(self) -> tuple[str, ...]:
        """The identifiers in the order in which the question lists them, the same for all orders of the options."""
        return self.permutation.inverse.apply(self.identifiers) if self.labelling == "places" else self.identifiers

    def reordered(self, order: Permutation) -> Request:
        """The same question with its options, which are images, in another displayed order.

        Raises:
            UserError: an option is a text.
        """
        if order == self.permutation:
            return self
        if (places := self.places) is None:
            raise UserError(f"Sample {self.sample_id} has texts as options, which only `lad-eval run` shows in several orders.")
        gold = order.position_of(self.permutation.order[self.gold_position])
        if self.labelling == "names":
            candidates = order.apply(self.permutation.inverse.apply(places))
            return replace(self, permutation=order, candidates=candidates, gold_position=gold)
        option_images = self.permutation.inverse.apply([self.images[place] for place in places])
        shown = dict(zip(places, order.apply(option_images), strict=True))
        images = tuple(shown.get(place, image) for place, image in enumerate(self.images))
        names = order.apply(self.listed_identifiers) if self.labelling == "places" else self.identifiers
        return replace(self, permutation=order, images=images, gold_position=gold, identifiers=names)

    @cached_property
    def key(self) -> str:
        """SHA-256 hex digest, 32 characters, of sample id, images, question, identifiers, options, labels and repetition."""
        with showing(self.sample_id):
            content: list[object] = [self.sample_id, [i.digest for i in self.images], self.question, list(self.identifiers)]
        if self.options is not None:
            content.append({"options": list(self.options)})
        if self.labels:
            content.append({"labels": list(self.labels)})
        if self.repeat:
            content.append({"repeat": self.repeat})
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
