"""Pictures as files, which VLMEvalKit's models read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from lad_eval.run.folder import write_atomically

if TYPE_CHECKING:
    from lad_eval.tasks.sample import ImageSource

_READABLE = {".jpg", ".jpeg", ".png", ".webp"}
_ORIENTATION, _UPRIGHT = 0x0112, (None, 1)


class Pictures:
    """Where each picture lies: its own file where every reader sees in it what we see, else a PNG named by its content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: dict[str, Path] = {}

    def path(self, image: ImageSource) -> Path:
        """The picture's file, which may not be written yet."""
        if image.digest not in self._paths:
            own = getattr(image, "path", None)
            upright = isinstance(own, Path) and own.suffix.lower() in _READABLE and _is_upright_rgb(own)
            named = hashlib.sha256(image.digest.encode()).hexdigest()[:32]
            self._paths[image.digest] = own.resolve() if own is not None and upright else self.folder / f"{named}.png"
        return self._paths[image.digest]

    def write(self, image: ImageSource) -> Path:
        """The picture's file, written if it is missing.

        Raises:
            DataError: the picture cannot be read.
        """
        path = self.path(image)
        if not path.is_file():
            picture = image.load()
            write_atomically(path, lambda beside: picture.save(beside, format="PNG"))
        return path


def _is_upright_rgb(path: Path) -> bool:
    """Whether the file's pixels are what `ImageSource.load` gives: upright and without a palette or transparency."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.mode == "RGB" and picture.getexif().get(_ORIENTATION) in _UPRIGHT
    except (OSError, SyntaxError, ValueError):
        return False
