"""Files of captions in the forms that people have them: every picture's captions, by file name."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lad_eval.errors import DataError
from lad_eval.tasks.files import did_you_mean, shown
from lad_eval.tasks.sources.captions_json import json_entries, json_line_entries
from lad_eval.tasks.sources.captions_keys import Entry, caption_texts, find_keys
from lad_eval.tasks.sources.captions_table import table_entries

JSON_LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv", ".txt", ".token")
FORMATS = (".json", *JSON_LINES, *TABLES, ".parquet")

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins as that of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GIT_LFS = b"version https://git-lfs.github.com/spec/"


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """The captions of every picture, at least one each, without repetitions.

    Pictures stand in the file's order; their captions too, except where the file numbers them: COCO's by their ids, those of
    token files by the number behind `#`.

    JSON: `{image: caption}`, `{image: [captions]}`, `{image: {"caption": ...}}`, a list of `{"image": ..., "caption": ...}`, COCO
    captions, Karpathy's splits. JSON lines: an object a line, as in Hugging Face's `metadata.jsonl`. Tables (`.csv`, `.tsv`,
    `.txt`, `.token`, `.parquet`): columns of names and captions, or Flickr token files. Names of keys and columns:
    `captions_keys`. Text is UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        DataError: the file is missing or of another form, which the text describes; a picture has no caption.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise DataError(f"{shown(path)}: a file of captions must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}.")
    where = shown(path)
    found: dict[str, dict[str, None]] = {}
    for name, value in _entries(path, where, suffix):
        texts = caption_texts(f"{where}: {name}", value)
        if not texts:
            raise DataError(f"{where}: {name} has no caption.")
        found.setdefault(name, {}).update(dict.fromkeys(texts))
    if not found:
        raise DataError(f"{where}: holds no caption.")
    return {name: tuple(texts) for name, texts in found.items()}


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
        raise DataError(f"{where}: begins as {encoding.upper()} and is not (byte {error.start}); save it as UTF-8.") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _unmarked(content: bytes) -> str:
    """UTF-16 without a byte order mark shows by the zero bytes of its ASCII characters, which no UTF-8 text has."""
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
