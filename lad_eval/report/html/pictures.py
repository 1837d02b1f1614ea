"""Thumbnails embedded in the page, of some samples and of bounded total size."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lad_eval.data.decoding import as_rgb
from lad_eval.errors import UserError
from lad_eval.report.html.text import without_paths

if TYPE_CHECKING:
    from PIL.Image import Image

    from lad_eval.tasks.request import ImageSource, Sample


SIDE = 160
QUALITY = 78
MOST_BYTES = 2 * 2**20
"""Of all images of a page together, before base64 makes them a third larger."""


@dataclass
class ImageBundle:
    """The images of one page, each once.

    Attributes:
        most: maximum total size in bytes.
        pictures: data URI by the image's name in the page.
        size: total size in bytes so far.
    """

    most: int = MOST_BYTES
    pictures: dict[str, str] = field(default_factory=dict)
    size: int = 0
    _names: dict[str, str] = field(default_factory=dict)

    def add(self, sample: Sample) -> tuple[str, ...] | None:
        """Adds the images that are a sample's options and returns their names, option 0 first, or None if they no longer fit.

        Raises:
            UserError: a picture cannot be read.
        """
        options = [sample.images[option] for option in sample.choices if isinstance(option, int)]
        fresh = {image.digest: _encoded(image) for image in options if image.digest not in self._names}
        needed = sum(map(len, fresh.values()))
        if self.size + needed > self.most:
            return None
        kind = _format()
        for digest, content in fresh.items():
            name = f"p{len(self._names)}"
            self._names[digest] = name
            self.pictures[name] = f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"
        self.size += needed
        return tuple(self._names[image.digest] for image in options)

    def add_all(self, samples: Iterable[Sample]) -> tuple[dict[str, tuple[str, ...]], str]:
        """Names by sample id of those that fit, and why images are missing, "" if none is."""
        held: dict[str, tuple[str, ...]] = {}
        refused = 0
        for sample in samples:
            try:
                names = self.add(sample)
            except (UserError, OSError) as error:
                return held, f"Images are missing: {without_paths(str(error))}"
            if names is None:
                refused += 1
            else:
                held[sample.id] = names
        bound = f"A page holds at most {MOST_BYTES / 2**20:.0f} MiB of images: {refused} more samples are shown without."
        return held, bound if refused else ""


def first_of(wanted: Iterable[Sequence[int]], most: int) -> list[int]:
    """The first `most` distinct numbers of several lists, one list after the other."""
    return list(dict.fromkeys(number for numbers in wanted for number in numbers))[:most]


def _encoded(source: ImageSource) -> bytes:
    picture: Image = as_rgb(source.load()).copy()
    picture.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    picture.save(stream, _format(), quality=QUALITY)
    return stream.getvalue()


def _format() -> str:
    from PIL import features

    return "WEBP" if features.check("webp") else "JPEG"
