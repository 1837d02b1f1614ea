"""Picture files: reading them, their digests and headers, and their faults in one line."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING

from lad_eval.data.decoding import DECODER_ERRORS, PictureHeader, RefusedError, Treatment, decode, inspect
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
    header: PictureHeader


def picture_facts(path: Path, name: str | None = None) -> PictureFacts:
    """Reads a file and its header.

    Args:
        path: of the file.
        name: what to call it in errors; None: its path.

    Raises:
        PictureError: it cannot be read, or is not a picture by its first bytes.
    """
    with _one_line(name or path):
        content = path.read_bytes()
        header = inspect(content)
    digest = hashlib.sha256(content)
    if header.treatments:
        # Bytes alone do not identify the picture: without the treatment they decode to other pixels.
        digest.update(f"\0decoded: {', '.join(header.treatments)}".encode())
    return PictureFacts(digest.hexdigest(), header)


def pixel_treatments(path: Path) -> tuple[Treatment, ...]:
    """What decoding does to the pixels of a file, except for turning; a JPEG is assumed to need nothing else.

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
    """Why a file cannot be read as a picture, in one line; empty if it can. `name` as in `read_picture`."""
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


@dataclass(frozen=True)
class Located:
    """Where a name leads.

    Attributes:
        name: the name without leading folders that do not exist below the picture folder.
        path: the file; None: there is no such file.
    """

    name: str
    path: Path | None


@dataclass(frozen=True)
class PictureFolder:
    """A folder whose pictures are looked up by name.

    A name that is not there as it is spelled is looked up again with backslashes read as separators, and in whichever Unicode
    normal form the file system has it: macOS stores "é" decomposed, and most files of captions have it composed. Links below the
    folder are followed: they were made on purpose.
    """

    path: Path
    _listings: dict[Path, Mapping[str, str]] = field(default_factory=dict, compare=False, repr=False)

    def find(self, name: str) -> Path | None:
        """The file of a name; None where there is none. `..` is resolved in the name, before any link is followed."""
        as_spelled = self.path / name
        if ".." in as_spelled.parts:
            as_spelled = Path(os.path.normpath(as_spelled))
        if _is_file(as_spelled):
            return as_spelled
        parts = PureWindowsPath(name).parts
        if not parts or ".." in parts or PureWindowsPath(name).anchor:
            return None
        path = self.path
        for part in parts:
            actual = self._listing(path).get(unicodedata.normalize("NFC", part))
            if actual is None:
                return None
            path = path / actual
        return path if _is_file(path) else None

    def leads_outside(self, name: str) -> bool:
        """Whether a name leads out of the folder by `..` or as an absolute path, whichever system wrote it."""
        if not name.startswith("/") and not any(sign in name for sign in ("..", "\\", ":")):
            return False
        if PureWindowsPath(name).drive and not Path(name).drive:
            return True
        folder = Path(os.path.normpath(self.path.absolute()))
        targets = (Path(os.path.normpath(folder / each)) for each in (name, name.replace("\\", "/")))
        return not all(target.is_relative_to(folder) for target in targets)

    def _listing(self, folder: Path) -> Mapping[str, str]:
        """Names in a folder by their composed form; of several names with one form, none."""
        if folder not in self._listings:
            listing: dict[str, str] = {}
            ambiguous = set()
            try:
                names = sorted(path.name for path in folder.iterdir())
            except OSError:
                names = []
            for name in names:
                composed = unicodedata.normalize("NFC", name)
                if listing.setdefault(composed, name) != name:
                    ambiguous.add(composed)
            self._listings[folder] = {key: name for key, name in listing.items() if key not in ambiguous}
        return self._listings[folder]


def locate(folder: PictureFolder, names: Iterable[str]) -> dict[str, Located]:
    """The file of every name, found in the same way for all of them.

    The names are used unchanged if one of them leads to a file. Otherwise leading folders that all names share are dropped, as
    few as necessary, and as a last resort all folders. So `val2014/a.jpg` is found in `val2014`, and `c0/a.jpg` is never taken
    for `a.jpg` where another picture lies in a folder `c0`.

    Raises:
        DataError: without their folders, two names are the same.
    """
    spelled = list(dict.fromkeys(names))
    shorter: Sequence[str] = spelled
    for shorter in _shortened(spelled):
        paths = [folder.find(name) for name in shorter]
        if any(paths):
            _refuse_merged(folder.path, spelled, shorter)
            return {name: Located(short, path) for name, short, path in zip(spelled, shorter, paths, strict=True)}
    return {name: Located(name, None) for name in spelled}


def _shortened(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """The names unchanged, then with fewer and fewer leading folders."""
    yield names
    parts = [path_parts(name) for name in names]
    folders = list(zip(*(each[:-1] for each in parts), strict=False))
    shared = next((depth for depth, steps in enumerate(folders) if len(set(steps)) > 1), len(folders))
    for dropped in range(1, shared + 1):
        yield ["/".join(each[dropped:]) for each in parts]
    yield [each[-1] if each else name for each, name in zip(parts, names, strict=True)]


def path_parts(name: str) -> tuple[str, ...]:
    """Folders and file name of a path written on any system, without its root and without `.` and `..`."""
    path = PureWindowsPath(name)
    return tuple(part for part in path.parts if part not in (path.anchor, ".", ".."))


def _refuse_merged(folder: Path, spelled: Sequence[str], shorter: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for name, short in zip(spelled, shorter, strict=True):
        other = first.setdefault(short, name)
        if other != name and not _one_ends_the_other(path_parts(other), path_parts(name)):
            raise DataError(
                f"{folder}: {other} and {name} are two pictures, but neither of their folders is there, only one {short}; "
                "name the folder that holds both."
            )


def _one_ends_the_other(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    """Whether two paths can be the same file, one of them written from a folder further up."""
    size = min(len(a), len(b))
    return a[-size:] == b[-size:]


def _is_file(path: Path) -> bool:
    """As `Path.is_file`; False too for names that the system cannot have, such as those with a null character."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
