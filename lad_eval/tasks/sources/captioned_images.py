"""A folder of pictures with a file of captions: the file of every name, and what is left out."""

from __future__ import annotations

import codecs
import logging
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lad_eval.data.pictures import PictureFolder, locate
from lad_eval.errors import DataError, did_you_mean
from lad_eval.tasks.files import shown
from lad_eval.tasks.sources.captions_json import Entry, caption_texts, find_keys, json_entries, json_line_entries
from lad_eval.tasks.sources.captions_table import table_entries

JSON_LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv", ".txt", ".token")
FORMATS = (".json", *JSON_LINES, *TABLES, ".parquet")

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the beginning of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GIT_LFS = b"version https://git-lfs.github.com/spec/"


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """The captions of every picture, at least one each, without repetitions.

    Pictures are in the file's order; so are their captions, except where the file numbers them: COCO's by their ids, those of
    token files by the number after `#`.

    JSON: `{image: caption}`, `{image: [captions]}`, `{image: {"caption": ...}}`, a list of `{"image": ..., "caption": ...}`, COCO
    captions, Karpathy's splits. JSON lines: one object per line, as in Hugging Face's `metadata.jsonl`. Tables (`.csv`, `.tsv`,
    `.txt`, `.token`, `.parquet`): columns of names and captions, or Flickr token files. Names of keys and columns:
    `captions_keys`. Text is UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        DataError: the file is missing or of another form, which the text describes; a picture has no caption.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise DataError(f"{shown(path)}: a file of captions must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}.")
    where = shown(path)
    captions: dict[str, dict[str, None]] = {}
    for name, value in _entries(path, where, suffix):
        texts = caption_texts(f"{where}: {name}", value)
        if not texts:
            raise DataError(f"{where}: {name} has no caption.")
        captions.setdefault(name, {}).update(dict.fromkeys(texts))
    if not captions:
        raise DataError(f"{where}: holds no caption.")
    return {name: tuple(texts) for name, texts in captions.items()}


def _entries(path: Path, where: str, suffix: str) -> Iterable[Entry]:
    content = _content(path, where)
    if suffix == ".parquet":
        return _parquet(content, where)
    text = decoded(content, where)
    if suffix == ".json":
        return json_entries(text, where)
    return json_line_entries(text, where) if suffix in JSON_LINES else table_entries(text, where, suffix)


def _content(path: Path, where: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        near = did_you_mean(path.name, (p.name for p in path.parent.glob("*")))
        raise DataError(f"{where}: no such captions file.{near}") from None
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror}.") from None
    if content.startswith(_GIT_LFS):
        raise DataError(f"{where}: is a Git LFS pointer, not the file itself; run `git lfs pull`.")
    return content


def decoded(content: bytes, where: str) -> str:
    """The text of a file, its lines ended by line feeds.

    Raises:
        DataError: it is neither UTF-8 nor UTF-16 nor UTF-32. Latin-1 is not guessed: any bytes are Latin-1.
    """
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), None) or _unmarked(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding.startswith("utf-8"):
            raise DataError(
                f"{where}: not UTF-8 text (byte {error.start} is 0x{content[error.start]:02x}); "
                "if it is in Latin-1 or Windows-1252, save it as UTF-8."
            ) from None
        raise DataError(f"{where}: begins like {encoding.upper()} but is not (byte {error.start}); save it as UTF-8.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unmarked(content: bytes) -> str:
    """Encoding of text without a byte order mark: UTF-16 has zero bytes in its ASCII characters, UTF-8 text has none."""
    start = content[:4096]
    low, high = start[0::2].count(0), start[1::2].count(0)
    if max(low, high) * 8 < len(start):
        return "utf-8"
    return "utf-16-le" if high > low else "utf-16-be"


def _parquet(content: bytes, where: str) -> Iterator[Entry]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        columns: Sequence[str] = file.schema_arrow.names
        name, caption = find_keys(columns, f"{where} has the columns {', '.join(columns) or 'none'}")
        rows: list[dict[str, Any]] = file.read(columns=list(dict.fromkeys([name, *caption]))).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: cannot be read as Parquet: {' '.join(str(error).split()).rstrip('.')}.") from None
    for row in rows:
        if not isinstance(row[name], str):
            raise DataError(
                f"{where}: the column {name} holds {type(row[name]).__name__} values, not file names; "
                "save pictures that are inside a table as files, and name these."
            )
        yield row[name], [row[key] for key in caption]


CaptionChoice = Literal["first", "random", "all"]
"""Which of several captions of an image are used."""

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaptionedImages:
    """Pictures with captions.

    Attributes:
        paths: of the pictures, by the names that the captions file gives.
        captions: of every picture, at least one.
        absent: names in the captions file for which there is no file.
    """

    paths: Mapping[str, Path]
    captions: Mapping[str, tuple[str, ...]]
    absent: tuple[str, ...] = ()

    @property
    def first(self) -> dict[str, str]:
        """Every picture's first caption."""
        return {name: captions[0] for name, captions in self.captions.items()}

    def chosen(self, choice: CaptionChoice, seed: int) -> dict[str, tuple[str, ...]]:
        """The captions that are used: all, the first, or one drawn for every image by a separate generator."""
        if choice == "all":
            return dict(self.captions)
        if choice == "first":
            return {name: captions[:1] for name, captions in self.captions.items()}
        return {name: (random.Random(f"caption-1/{seed}/{name}").choice(captions),) for name, captions in self.captions.items()}


def read_captioned_images(images: Path, captions: Path, *, allow_outside: bool = False) -> CaptionedImages:
    """Reads the captions and looks for every picture; no picture is opened.

    Captions of missing pictures are left out, and so are pictures without a caption; a warning counts both.

    Args:
        images: folder of the pictures.
        captions: captions file, see `read_captions`; its names are relative to the folder.
        allow_outside: whether names may lead out of the folder.

    Raises:
        DataError: the folder or the file is missing, its form is unknown, a name leads out of the folder, or none of the
            pictures is there.
    """
    if not images.is_dir():
        near = did_you_mean(images.name, (p.name for p in images.parent.glob("*") if p.is_dir()))
        raise DataError(f"{shown(images)}: no such folder of images.{near}")
    captions_of = read_captions(captions)
    folder = PictureFolder(images)
    if not allow_outside and (outside := [name for name in captions_of if folder.leads_outside(name)]):
        more = f" ({len(outside)} names do)" if len(outside) > 1 else ""
        raise DataError(
            f"{shown(captions)}: the name {outside[0]!r} leads out of the folder of images {shown(images)}{more}; "
            "name a folder that holds them all, or allow it with `allow_outside: true` under `data:`."
        )
    paths: dict[str, Path] = {}
    all_captions: dict[str, dict[str, None]] = {}
    name_of: dict[str, str] = {}
    absent = []
    for spelled, located in locate(folder, captions_of).items():
        if located.path is None:
            absent.append(located.name)
            continue
        # Two spellings of one file, such as `a.jpg` and `./a.jpg`, are one picture.
        name = name_of.setdefault(os.path.normpath(located.path), located.name)
        paths[name] = located.path
        all_captions.setdefault(name, {}).update(dict.fromkeys(captions_of[spelled]))
    if not paths:
        raise DataError(_none_there(images, captions, absent))
    if absent:
        _LOG.warning("%s: %s", shown(images), absent_line(len(absent), len(paths), absent[0]))
    _warn_of_captionless(images, paths)
    return CaptionedImages(paths, {name: tuple(texts) for name, texts in all_captions.items()}, tuple(absent))


def absent_line(absent: int, there: int, first: str) -> str:
    """Note on a folder that lacks pictures of its captions file."""
    return f"{absent} of {absent + there} images with a caption are missing and left out, such as {first}."


def _none_there(images: Path, captions: Path, absent: list[str]) -> str:
    pictures = sorted(path.name for path in images.rglob("*") if path.suffix.lower() in PICTURES)
    holds = f"{len(pictures)} picture{'s' if len(pictures) > 1 else ''}, such as {pictures[0]}" if pictures else "no picture"
    number = f"none of the {len(absent)} images" if len(absent) > 1 else "the image"
    is_there = "is" if len(absent) > 1 else "is not"
    return f"{shown(captions)}: {number} that it names, such as {absent[0]}, {is_there} in {shown(images)}, which holds {holds}."


def _warn_of_captionless(images: Path, paths: Mapping[str, Path]) -> None:
    known = {os.path.normpath(path) for path in paths.values()}
    without = [p.name for p in images.iterdir() if p.suffix.lower() in PICTURES and os.path.normpath(p) not in known]
    if without:
        _LOG.warning("%s: %d images without a caption are left out, such as %s.", shown(images), len(without), min(without))
