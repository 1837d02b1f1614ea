"""Images as an application has them: paths and Pillow images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from lad_eval.data.decoding import RefusedError, as_rgb
from lad_eval.errors import DataError
from lad_eval.tasks.request import ImageSource
from lad_eval.tasks.sources.base import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

ImageLike: TypeAlias = Union[str, Path, "Image", ImageSource]


@dataclass(frozen=True, eq=False)
class PillowImage:
    """An image in memory; an `ImageSource`."""

    image: Image

    @cached_property
    def digest(self) -> str:
        """SHA-256 hex digest of mode, size and pixels."""
        head = f"{self.image.mode} {self.image.size}\n".encode()
        return hashlib.sha256(head + self.image.tobytes()).hexdigest()

    def load(self) -> Image:
        """The image in RGB, as a file of it would be read. Raises DataError if its mode holds no picture."""
        try:
            return as_rgb(self.image)
        except RefusedError as error:
            raise DataError(f"An image of mode {self.image.mode} cannot be shown{error}.") from None


def image_source(image: ImageLike) -> ImageSource:
    """What a sample holds in an image's place.

    Raises:
        DataError: it is neither a path nor an image.
    """
    from PIL.Image import Image as Pillow

    if isinstance(image, str | Path):
        return Picture(Path(image).expanduser())
    if isinstance(image, Pillow):
        return PillowImage(image)
    if hasattr(image, "digest") and hasattr(image, "load"):
        return image
    raise DataError(f"An image must be a path or a Pillow image, not {type(image).__name__}.")
