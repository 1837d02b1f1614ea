"""Images before the model's processor: read, turned into RGB, resized or padded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from lad_eval.data.decoding import as_rgb
from lad_eval.errors import UserError
from lad_eval.models.base import ImagePreparation
from lad_eval.models.inputs.cache import CACHE_BYTES, ByteLRU
from lad_eval.models.inputs.padding import CLIP_MEAN, Colour, pad_to_square

if TYPE_CHECKING:
    from PIL.Image import Image

    from lad_eval.tasks.request import ImageSource


Size = tuple[int, int]

PROTOCOL_SIZE = (336, 336)
"""Width and height, in pixels, to which the protocol of arXiv 2605.11591 resizes every image (bicubic)."""

# Options of a family's image processor that depend on the number of images, by `model_type` of the configuration.
IMAGE_OPTIONS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    # Tiles of an image: the released code of LAD shares 28 among all images, at most 12 for one.
    "internvl": lambda n_images: {"max_patches": max(1, min(12, 28 // n_images))},
}


def check_image_preparation(name: str) -> ImagePreparation:
    """The name, after checking it.

    Raises:
        UserError: there is no such image preparation.
    """
    known: tuple[ImagePreparation, ...] = get_args(ImagePreparation)
    for choice in known:
        if name == choice:
            return choice
    raise UserError(f"Unknown image preparation {name!r}: use {' or '.join(map(repr, known))}.")


@dataclass(frozen=True)
class PreparedImage:
    """An image in RGB as passed to the model's processor, and its original width and height."""

    image: Image
    original: Size


class ImageCache:
    """A cache of prepared images: a sample's permutations show the same images again and again.

    Args:
        preparation: "protocol" resizes to PROTOCOL_SIZE; "native" leaves the size to the processor; "pad" pads to a square.
        colour: of the padding.
        capacity_bytes: of the cached pixels.
    """

    def __init__(self, preparation: ImagePreparation, colour: Colour = CLIP_MEAN, capacity_bytes: int = CACHE_BYTES) -> None:
        self.preparation = preparation
        self._colour = colour
        self._held: ByteLRU[str, PreparedImage] = ByteLRU(capacity_bytes, _bytes)

    def get(self, source: ImageSource) -> PreparedImage:
        """The image, prepared.

        Raises:
            DataError: it cannot be read.
        """
        return self._held.get_or_make(source.digest, lambda: self.read(source))

    def read(self, source: ImageSource) -> PreparedImage:
        """The image, prepared again.

        Raises:
            DataError: it cannot be read.
        """
        loaded = source.load()
        image = as_rgb(loaded, copy=False)
        prepared = self.prepare(image)
        return PreparedImage(prepared.copy() if prepared is loaded else prepared, image.size)

    def prepare(self, image: Image) -> Image:
        """An image in RGB, resized (without keeping its aspect ratio) or padded if the preparation says so."""
        from PIL.Image import Resampling

        if self.preparation == "protocol" and image.size != PROTOCOL_SIZE:
            return image.resize(PROTOCOL_SIZE, Resampling.BICUBIC)
        return pad_to_square(image, self._colour) if self.preparation == "pad" else image


def _bytes(held: PreparedImage) -> int:
    return held.image.width * held.image.height * 4  # Pillow keeps a pixel of RGB in four bytes
