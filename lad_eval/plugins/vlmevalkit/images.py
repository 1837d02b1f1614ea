"""Pictures as files, which VLMEvalKit's models read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from lad_eval.data.pictures import picture_facts
from lad_eval.errors import PictureError
from lad_eval.files.atomic import sweep
from lad_eval.run.folder import write_atomically

if TYPE_CHECKING:
    from lad_eval.tasks.sample import ImageSource

_READABLE = {".jpg", ".jpeg", ".png", ".webp"}


class Pictures:
    """Where each picture lies: its own file where every reader sees in it what we see, else a PNG named by its content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        sweep(folder)
        self._paths: dict[str, Path] = {}

    def path(self, image: ImageSource) -> Path:
        """The picture's file, which may not be written yet."""
        if image.digest not in self._paths:
            own = getattr(image, "path", None)
            as_decoded = isinstance(own, Path) and own.suffix.lower() in _READABLE and _is_as_decoded(own)
            named = hashlib.sha256(image.digest.encode()).hexdigest()[:32]
            self._paths[image.digest] = own.resolve() if own is not None and as_decoded else self.folder / f"{named}.png"
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


def _is_as_decoded(path: Path) -> bool:
    """Whether the file's pixels are what `ImageSource.load` gives: RGB, and nothing is done to them."""
    try:
        header = picture_facts(path).header
    except PictureError:
        return False
    return header.mode == "RGB" and not header.treatments
