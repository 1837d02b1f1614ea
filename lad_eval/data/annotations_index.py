"""What a captioned set of pictures holds, told apart from how its files say it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lad_eval.errors import DataError
from lad_eval.files import documents

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_FORMAT = 1


@dataclass(frozen=True)
class CaptionIndex:
    """Pictures with captions.

    Attributes:
        folder: of the pictures, relative to the data set's root, with forward slashes.
        captions: by file name; only of pictures that are there.
        categories: category ids by file name; None: the data has no categories. A picture without an entry is in no sample.
        test: names from which test samples are made; empty: the data does not say.
        absent: how many pictures have a caption and are not there.
    """

    folder: str
    captions: Mapping[str, str]
    categories: Mapping[str, frozenset[int]] | None = None
    test: tuple[str, ...] = ()
    absent: int = 0

    @cached_property
    def names(self) -> list[str]:
        """Pictures that can stand in samples, sorted."""
        return sorted(name for name in self.captions if self.categories is None or name in self.categories)

    @cached_property
    def digest(self) -> str:
        """SHA-256 hex digest, 32 characters, of all of it."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()[:32]

    def _plain(self) -> dict[str, Any]:
        plain = asdict(self)
        if self.categories is not None:
            plain["categories"] = {name: sorted(found) for name, found in sorted(self.categories.items())}
        return plain


def pictures_in(folder: Path) -> set[str]:
    """File names of the pictures of a folder.

    Raises:
        DataError: there is no such folder, or none in it.
    """
    try:
        found = {path.name for path in folder.iterdir() if path.suffix.lower() in PICTURES}
    except OSError:
        raise DataError(f"{folder} is missing (the pictures).") from None
    if not found:
        raise DataError(f"{folder} holds no picture.")
    return found


def read_json(path: Path, purpose: str) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        return documents.parse(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} is missing ({purpose}).") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise DataError(f"{path} is damaged: not JSON ({error}); get it again.") from None


def cached_index(path: Path, sources: Sequence[Path], make: Callable[[], CaptionIndex]) -> CaptionIndex:
    """The index as it was noted at `path`, if its sources have not changed since; else made and noted.

    COCO's own files take seconds and a gigabyte to read. A note that cannot be written is done without.
    """
    seen = [[source.name, stat.st_size, stat.st_mtime_ns] for source in sources if (stat := _stat(source)) is not None]
    try:
        noted = documents.read_json(path, error=DataError)
        if noted["format"] == _FORMAT and noted["sources"] == seen:
            return _index(noted["index"])
    except (DataError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a cache: what is damaged or of another version is made again
    index = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        documents.write_json(path, {"format": _FORMAT, "sources": seen, "index": index._plain()})
    except OSError:
        pass
    return index


def _index(plain: dict[str, Any]) -> CaptionIndex:
    categories = plain["categories"]
    if categories is not None:
        categories = {name: frozenset(found) for name, found in categories.items()}
    return CaptionIndex(plain["folder"], plain["captions"], categories, tuple(plain["test"]), plain["absent"])


def _stat(path: Path) -> Any:
    try:
        return path.stat()
    except OSError:
        return None
