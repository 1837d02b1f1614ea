"""Annotation files of the released code of LAD: a JSON list of samples.

Every entry has `id` (a running number), `image_ids` (paths in displayed order), `index` (0-based place of the right picture),
`target` (its file name) and `caption`. The folder of the pictures is named separately: paths are looked up below it, as
much of each as exists there (`lad_eval.data.pictures.locate`), so that none leads out of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any

from lad_eval.data.pictures import path_parts
from lad_eval.errors import DataError
from lad_eval.files.atomic import write_text
from lad_eval.files.documents import parse, read_json, write_json

_KEYS = ("id", "image_ids", "index", "target", "caption")


@dataclass(frozen=True)
class Annotation:
    """One sample as the file has it."""

    id: int
    image_ids: tuple[str, ...]
    index: int
    target: str
    caption: str

    def renamed(self, names: Mapping[str, str]) -> Annotation:
        """The same sample with its pictures renamed, old name -> new name; the target is the right picture's new name."""
        paths = tuple(names[path] for path in self.image_ids)
        return Annotation(self.id, paths, self.index, paths[self.index], self.caption)


def file_name(path: str) -> str:
    """The last part of a path written on any system."""
    return PureWindowsPath(path).name


def sample_ids(annotations: Iterable[Annotation]) -> Iterator[str]:
    """An id for every sample: its right picture's file name; from the second sample of that picture on with `#2`, `#3`, ...

    Every right image is therefore among the ids under its own name, so that sets of ids show whether two
    tasks share a right image.
    """
    seen: dict[str, int] = {}
    for annotation in annotations:
        count = seen[annotation.target] = seen.get(annotation.target, 0) + 1
        yield annotation.target if count == 1 else f"{annotation.target}#{count}"


def dumps(annotations: Sequence[Annotation]) -> str:
    """The text of an annotation file, byte for byte as the released code writes it."""
    return json.dumps([asdict(annotation) for annotation in annotations], indent=2)


def write_annotations(path: Path, annotations: Sequence[Annotation]) -> None:
    """Writes an annotation file, atomically.

    Raises:
        DataError: it cannot be written.
    """
    try:
        write_text(path, dumps(annotations))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}.") from None


def read_annotations(path: Path) -> list[Annotation]:
    """The samples of an annotation file, in its order.

    Raises:
        DataError: the file is missing or of another form; the text names the entry and the key.
    """
    try:
        entries = parse(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation file.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}.") from None
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: must be a list of samples, [{{{', '.join(_KEYS)}}}, ...].")
    samples = [_annotation(f"{path}: entry {number}", entry) for number, entry in enumerate(entries)]
    counts = {len(sample.image_ids) for sample in samples}
    if len(counts) > 1:
        raise DataError(f"{path}: samples have {', '.join(map(str, sorted(counts)))} images; every sample must have as many.")
    return samples


def _annotation(where: str, entry: Any) -> Annotation:
    if not isinstance(entry, dict):
        raise DataError(f"{where}: must be an object with {', '.join(_KEYS)}.")
    if missing := [key for key in _KEYS if key not in entry]:
        raise DataError(f"{where}: lacks {', '.join(missing)}.")
    id_, images, index, target, caption = (entry[key] for key in _KEYS)
    if not _whole(id_):
        raise DataError(f"{where}: id must be a whole number, not {id_!r}.")
    if not isinstance(images, list) or len(images) < 2 or not all(isinstance(path, str) and path_parts(path) for path in images):
        raise DataError(f"{where}: image_ids must be a list of two paths or more.")
    if not _whole(index) or not 0 <= index < len(images):
        raise DataError(f"{where}: index must be one of 0..{len(images) - 1}, not {index!r}.")
    if not isinstance(target, str) or not _names(target, images[index]):
        raise DataError(f"{where}: target is {target!r}, but image_ids[{index}] is {file_name(images[index])!r}.")
    if len({path_parts(path) for path in images}) < len(images):
        raise DataError(f"{where}: image_ids names a picture twice.")
    if not isinstance(caption, str) or not caption.strip():
        raise DataError(f"{where}: there is no caption.")
    return Annotation(id_, tuple(images), index, target, caption)


def _names(target: str, path: str) -> bool:
    """Whether a target is the end of a path: the file name, with any number of the folders before it."""
    wanted, parts = path_parts(target), path_parts(path)
    return bool(wanted) and parts[-len(wanted) :] == wanted


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
        absent: how many pictures have a caption and are missing.
    """

    folder: str
    captions: Mapping[str, str]
    categories: Mapping[str, frozenset[int]] | None = None
    test: tuple[str, ...] = ()
    absent: int = 0

    @cached_property
    def names(self) -> list[str]:
        """Pictures that samples can show, sorted."""
        return sorted(name for name in self.captions if self.categories is None or name in self.categories)

    @cached_property
    def digest(self) -> str:
        """SHA-256 hex digest, 32 characters, of the whole index."""
        return hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode()).hexdigest()[:32]

    def _plain(self) -> dict[str, Any]:
        plain = asdict(self)
        if self.categories is not None:
            plain["categories"] = {name: sorted(members) for name, members in sorted(self.categories.items())}
        return plain


def pictures_in(folder: Path) -> set[str]:
    """File names of the pictures of a folder.

    Raises:
        DataError: there is no such folder, or none in it.
    """
    try:
        names = {path.name for path in folder.iterdir() if path.suffix.lower() in PICTURES}
    except OSError:
        raise DataError(f"{folder} is missing (the pictures).") from None
    if not names:
        raise DataError(f"{folder} holds no picture.")
    return names


def cached_index(path: Path, sources: Sequence[Path], make: Callable[[], CaptionIndex]) -> CaptionIndex:
    """The index as stored at `path`, if its sources have not changed since; else it is made and stored.

    COCO's own files take seconds and a gigabyte to read. If the index cannot be stored, it is made again by the next call.
    """
    seen = [[source.name, stat.st_size, stat.st_mtime_ns] for source in sources if (stat := _stat(source)) is not None]
    try:
        noted = read_json(path, error=DataError)
        if noted["format"] == _FORMAT and noted["sources"] == seen:
            return _index(noted["index"])
    except (DataError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a cache: what is damaged or of another version is made again
    index = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format": _FORMAT, "sources": seen, "index": index._plain()})
    except OSError:
        pass
    return index


def _index(plain: dict[str, Any]) -> CaptionIndex:
    categories = plain["categories"]
    if categories is not None:
        categories = {name: frozenset(members) for name, members in categories.items()}
    return CaptionIndex(plain["folder"], plain["captions"], categories, tuple(plain["test"]), plain["absent"])


def _stat(path: Path) -> Any:
    try:
        return path.stat()
    except OSError:
        return None
