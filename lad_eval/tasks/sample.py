"""A sample: N images, a caption, and which of the images it describes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from lad_eval.errors import PictureError

if TYPE_CHECKING:
    from PIL.Image import Image

Split = Literal["test", "calibration"]


class ImageSource(Protocol):
    """An image that is read or drawn when it is needed; hashable, cheap to hold."""

    @property
    def digest(self) -> str:
        """Hex digest of the content: of a file's bytes and how they are decoded, or of everything that determines a drawing."""

    def load(self) -> Image:
        """The picture in RGB. Raises DataError with the file's name if it cannot be read."""


def text_fault(text: str) -> str | None:
    """What keeps text from being put to a model; None where nothing does."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"holds {text[error.start]!r}, half of a character that was not decoded; save it as UTF-8"
    return None


@dataclass(frozen=True)
class Sample:
    """One question before any permutation.

    Attributes:
        identifiers: names of the positions, where this sample's own question gives them; None: as the task says.
    """

    id: str
    images: tuple[ImageSource, ...]
    caption: str
    gold: int
    split: Split = "test"
    identifiers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.gold < len(self.images):
            raise ValueError(f"sample {self.id}: gold {self.gold} is no index of {len(self.images)} images")
        if self.identifiers is not None and not len(set(self.identifiers)) == len(self.identifiers) == len(self.images):
            raise ValueError(f"sample {self.id}: {self.identifiers} do not name {len(self.images)} positions")


class Source(Protocol):
    """Turns data into samples; one module of `lad_eval.tasks.sources` each."""

    @property
    def fingerprint(self) -> str:
        """Hex digest of everything that determines the samples."""

    def samples(self, split: Split, limit: int | None = None) -> Iterator[Sample]:
        """Samples of a split in a fixed order; `limit` only shortens the list."""


@contextmanager
def showing(sample_id: str) -> Iterator[None]:
    """While open, a picture that cannot be read is reported with the sample that shows it."""
    try:
        yield
    except PictureError as error:
        raise error.of_sample(sample_id) from None
