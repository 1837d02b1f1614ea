"""Reading picture files, with whatever is wrong with one told in a line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lad_eval.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


@contextmanager
def faults_told(name: str | Path) -> Iterator[None]:
    """Turns what Pillow and the system raise over a picture file into one kind of error.

    Raises:
        DataError: what is in the block cannot be done with the file; the text calls it `name`.
    """
    from PIL import Image as Pil

    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{name}: no such image.") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Pil.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged or no image"
        raise DataError(f"{name}: cannot be read: {reason}.") from None


def read_picture(path: Path, name: str | None = None) -> Image:
    """A picture in RGB, turned as its EXIF orientation says.

    Args:
        path: of the file.
        name: what to call it in errors; None: its path.

    Raises:
        DataError: it cannot be read.
    """
    from PIL import Image as Pil
    from PIL import ImageOps

    with faults_told(name or path), Pil.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def picture_faults(path: Path, name: str | None = None) -> list[str]:
    """What keeps a file from being read as a picture, in one line; empty where nothing does. `name` as of `read_picture`."""
    try:
        read_picture(path, name)
    except DataError as error:
        return [str(error)]
    return []
