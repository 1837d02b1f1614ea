"""Picture files as images of samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lad_eval.data.decoding import Treatment
from lad_eval.data.pictures import PictureFacts, picture_facts, picture_faults, read_picture
from lad_eval.errors import PictureError
from lad_eval.tasks.files import shown

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Picture:
    """A file; an `ImageSource`."""

    path: Path

    @cached_property
    def facts(self) -> PictureFacts:
        """What the file is, read once.

        Raises:
            PictureError: it cannot be read or does not begin as a picture does.
        """
        return picture_facts(self.path, shown(self.path))

    @property
    def content_digest(self) -> str:
        """SHA-256 hex digest of the file's bytes, and of what decoding does to the pixels, if it does anything.

        Raises:
            PictureError: as of `facts`.
        """
        return self.facts.digest

    @property
    def digest(self) -> str:
        """The same; errors as of `facts`."""
        return self.content_digest

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels; errors as of `facts`."""
        return self.facts.header.size

    def load(self) -> Image:
        """The picture in RGB: turned, flattened on white, scaled to 8 bits, its first frame, as it needs."""
        return read_picture(self.path, shown(self.path))

    def faults(self) -> list[str]:
        """What keeps it from being read, in one line; empty where nothing does."""
        return picture_faults(self.path, shown(self.path))


@dataclass(frozen=True)
class NamedPicture(Picture):
    """A picture that its data set knows by its file name.

    Two files of one content stay two candidates, as in everybody else's results on the data set.
    """

    @cached_property
    def digest(self) -> str:
        """SHA-256 hex digest of the file's name and of `content_digest`; errors as of `facts`."""
        return hashlib.sha256(f"{self.path.name}\0{self.content_digest}".encode()).hexdigest()


def treatments_of(pictures: Iterable[Picture]) -> Iterator[Treatment]:
    """What decoding does to each of the pictures that can be read, one after the other."""
    for picture in pictures:
        with suppress(PictureError):
            yield from picture.facts.header.treatments
