"""Captions files: JSON, JSON lines, CSV and TSV, read into {file name: caption}."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lad_eval.errors import DataError
from lad_eval.tasks.files import did_you_mean, shown

FORMATS = (".json", ".jsonl", ".csv", ".tsv")


def read_captions(path: Path) -> dict[str, str]:
    """Caption of every picture, in the file's order.

    JSON: `{file: caption}` or `{file: {"caption": caption, ...}}`. JSON lines: `{"image": file, "caption": caption}` a line.
    CSV and TSV: a header line with the columns `image` and `caption`. Keys and columns beside these are passed over.

    Raises:
        DataError: the file is missing or of another form, a picture has no caption or two lines.
    """
    where = shown(path)
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{where}: captions must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = did_you_mean(path.name, (p.name for p in path.parent.glob("*")))
        raise DataError(f"{where}: no such captions file.{near}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 text (byte {error.start}).") from None
    except OSError as error:
        raise DataError(f"{where}: cannot be read: {error.strerror}.") from None
    captions: dict[str, str] = {}
    for name, caption in _pairs(path, text):
        if not isinstance(name, str) or not name:
            raise DataError(f"{where}: an image's name must be text, not {name!r}.")
        if name in captions:
            raise DataError(f"{where}: {name} is given twice; every image has one caption here.")
        if not isinstance(caption, str) or not caption.strip():
            raise DataError(f"{where}: {name} has no caption.")
        captions[name] = caption.strip()
    if not captions:
        raise DataError(f"{where}: holds no caption.")
    return captions


def _pairs(path: Path, text: str) -> Iterable[tuple[Any, Any]]:
    if path.suffix.lower() == ".json":
        return _json(path, text)
    if path.suffix.lower() == ".jsonl":
        return _json_lines(path, text)
    return _table(path, text, "," if path.suffix.lower() == ".csv" else "\t")


def _json(path: Path, text: str) -> Iterator[tuple[Any, Any]]:
    try:
        # Pairs, not a dict: of a name given twice json would keep the second in silence.
        entries = json.loads(text, object_pairs_hook=_Pairs)
    except ValueError as error:
        raise DataError(f"{shown(path)}: not JSON: {error}.") from None
    if not isinstance(entries, _Pairs):
        raise DataError(f"{shown(path)}: must be one object, {{file: caption}} or {{file: {{caption: ...}}}}.")
    for name, value in entries:
        yield name, dict(value).get("caption") if isinstance(value, _Pairs) else value


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as it stands in the file."""


def _json_lines(path: Path, text: str) -> Iterator[tuple[Any, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or "image" not in entry:
            raise DataError(f'{shown(path)}: line {number}: must be {{"image": file, "caption": caption}}.')
        yield entry["image"], entry.get("caption")


def _table(path: Path, text: str, delimiter: str) -> Iterator[tuple[Any, Any]]:
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        if missing := [name for name in ("image", "caption") if name not in (rows.fieldnames or ())]:
            lacks = " and ".join(missing)
            raise DataError(f"{shown(path)}: the first line must name the columns image and caption; it lacks {lacks}.")
        for row in rows:
            if None in row:
                raise DataError(
                    f"{shown(path)}: line {rows.line_num}: too many fields; put a caption with {delimiter!r} in quotes."
                )
            yield row["image"], row["caption"]
    except csv.Error as error:
        raise DataError(f"{shown(path)}: line {rows.line_num}: {error}.") from None
