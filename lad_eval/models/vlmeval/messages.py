"""Requests as VLMEvalKit messages: paths of the images in displayed order, then the question."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lad_eval.data.pictures import picture_facts
from lad_eval.files.atomic import Scratch
from lad_eval.models.preparation import ImageCache, ImagePreparation
from lad_eval.tasks.request import Request
from lad_eval.tasks.sample import ImageSource, showing

Message = list[dict[str, Any]]

_FILES = 512


class Messages:
    """Writes images where VLMEvalKit's classes can read them, without loss, in a folder that goes when this object goes.

    Args:
        preparation: "protocol" squashes every image to 336 x 336 pixels; "native" leaves its size to the model's class.
    """

    def __init__(self, preparation: ImagePreparation) -> None:
        self.preparation = preparation
        self._images = ImageCache(preparation)
        self._folder: Scratch | None = None
        self._files: OrderedDict[str, Path] = OrderedDict()

    def of(self, request: Request) -> Message:
        """The message of one request; its files stay for the next few hundred images at least.

        Raises:
            DataError: an image cannot be read.
        """
        with showing(request.sample_id):
            images = [{"type": "image", "value": str(self._file(source))} for source in request.images]
        return [*images, {"type": "text", "value": request.question}]

    def _file(self, source: ImageSource) -> Path:
        digest = source.digest
        if digest not in self._files:
            if self._folder is None:
                self._folder = Scratch("images")
            path = Path(self._folder.name, f"{hashlib.sha256(digest.encode()).hexdigest()[:32]}.png")
            self._images.get(source).save(path, format="PNG", compress_level=1)
            self._files[digest] = path
            while len(self._files) > _FILES:
                self._files.popitem(last=False)[1].unlink(missing_ok=True)
        self._files.move_to_end(digest)
        return self._files[digest]


def images_of(message: Sequence[dict[str, Any]]) -> list[str]:
    """Values of the message's images, in order."""
    return [str(part["value"]) for part in message if part.get("type") == "image"]


def equal_sizes(paths: Sequence[str]) -> bool:
    """Whether all image files have one size in pixels.

    Raises:
        DataError: a file cannot be read.
    """
    return len({picture_facts(Path(path)).header.size for path in paths}) == 1
