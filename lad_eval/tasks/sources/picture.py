"""Picture files as images of samples."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lad_eval.data.pictures import faults_told, picture_faults, read_picture
from lad_eval.tasks.files import shown

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Picture:
    """A file; an `ImageSource`."""

    path: Path

    @cached_property
    def content_digest(self) -> str:
        """SHA-256 hex digest of the file's bytes.

        Raises:
            DataError: the file cannot be read or does not begin as a picture does.
        """
        from PIL import Image as Pil

        with faults_told(shown(self.path)):
            content = self.path.read_bytes()
            with Pil.open(io.BytesIO(content)):
                pass
        return hashlib.sha256(content).hexdigest()

    @property
    def digest(self) -> str:
        """The same; errors as of `content_digest`."""
        return self.content_digest

    def load(self) -> Image:
        """The picture in RGB, turned as its EXIF orientation says."""
        return read_picture(self.path, shown(self.path))

    def faults(self) -> list[str]:
        """What keeps it from being read, in one line; empty where nothing does."""
        return picture_faults(self.path, shown(self.path))


@dataclass(frozen=True)
class NamedPicture(Picture):
    """A picture that its data set knows by its file name.

    Two files of one content stay two candidates, as in everybody else's results on the data set.
    """

    @property
    def digest(self) -> str:
        """SHA-256 hex digest of the file's name and bytes; errors as of `Picture`."""
        return hashlib.sha256(f"{self.path.name}\0{self.content_digest}".encode()).hexdigest()
