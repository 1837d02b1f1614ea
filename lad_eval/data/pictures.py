"""Picture files: what each is and shows, and whatever is wrong with one in one line."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lad_eval.data.decoding import DECODER_ERRORS, Header, RefusedError, Treatment, decode, inspect
from lad_eval.errors import DataError, PictureError

if TYPE_CHECKING:
    from PIL.Image import Image

_JPEG = b"\xff\xd8\xff"
_PHRASES: dict[Treatment, tuple[str, str]] = {
    "turned": ("was turned as its EXIF orientation says", "were turned as their EXIF orientation says"),
    "flattened": ("was flattened on white", "were flattened on white"),
    "scaled": ("was scaled to 8 bits", "were scaled to 8 bits"),
    "first frame": ("has several frames and shows its first", "have several frames and show their first"),
}


@dataclass(frozen=True)
class PictureFacts:
    """What a file is as a picture, without its pixels.

    Attributes:
        digest: SHA-256 hex digest of its bytes and of the treatments, if there are any.
        header: size, mode, treatments.
    """

    digest: str
    header: Header


def picture_facts(path: Path, name: str | None = None) -> PictureFacts:
    """Reads a file and looks at its header.

    Args:
        path: of the file.
        name: what to call it in errors; None: its path.

    Raises:
        PictureError: it cannot be read, or does not begin as a picture does.
    """
    with _one_line(name or path):
        content = path.read_bytes()
        header = inspect(content)
    digest = hashlib.sha256(content)
    if header.treatments:
        # The same bytes, decoded without the treatment, are another picture.
        digest.update(f"\0decoded: {', '.join(header.treatments)}".encode())
    return PictureFacts(digest.hexdigest(), header)


def pixel_treatments(path: Path) -> tuple[Treatment, ...]:
    """What decoding does to the pixels of a file, turning aside; nothing is, without a further look, done to a JPEG.

    Raises:
        PictureError: as of `picture_facts`.
    """
    with _one_line(path), path.open("rb") as file:
        if file.read(len(_JPEG)) == _JPEG:
            return ()
    return tuple(each for each in picture_facts(path).header.treatments if each != "turned")


def read_picture(path: Path, name: str | None = None) -> Image:
    """A picture in RGB, as `lad_eval.data.decoding.decode` gives it.

    Args:
        path: of the file.
        name: what to call it in errors; None: its path.

    Raises:
        PictureError: it cannot be read.
    """
    with _one_line(name or path):
        return decode(path.read_bytes())


def picture_faults(path: Path, name: str | None = None) -> list[str]:
    """What keeps a file from being read as a picture, in one line; empty where nothing does. `name` as of `read_picture`."""
    try:
        read_picture(path, name)
    except DataError as error:
        return [str(error)]
    return []


def treatment_line(treatments: Iterable[Treatment]) -> str:
    """How many pictures were treated in which way, as "3 pictures were flattened on white, 1 was ..."; "" for none."""
    counts = Counter(treatments)
    parts = [
        f"{counts[each]} {'picture' if counts[each] == 1 else 'pictures'} {phrases[counts[each] > 1]}"
        for each, phrases in _PHRASES.items()
        if counts[each]
    ]
    return f"{', '.join(parts)}." if parts else ""


@contextmanager
def _one_line(name: str | Path) -> Iterator[None]:
    """Turns what Pillow and the system raise over a picture file into one kind of error; the text calls the file `name`."""
    try:
        yield
    except RefusedError as error:
        raise PictureError(f"{name}{error}.") from None
    except FileNotFoundError:
        raise PictureError(f"{name}: no such image.") from None
    except DECODER_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged or no image"
        raise PictureError(f"{name}: cannot be read: {reason}.") from None
