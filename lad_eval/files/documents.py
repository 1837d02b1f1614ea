"""Our own JSON documents: written with a checksum of their content, and read only if it is right."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from lad_eval.errors import UserError
from lad_eval.files.atomic import write_atomically

CHECKSUM = "checksum"
"""The last key of a document or a line: the checksum of its content."""


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a document and its checksum, atomically; missing folders are created.

    Raises:
        ValueError: it holds a value that is not JSON, such as NaN.
        OSError: the file cannot be written.
    """
    sealed = {**document, CHECKSUM: checksum(document)}
    text = json.dumps(sealed, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_bytes(_encoded(sealed, text)))


def read_json(path: Path, *, what: str = "", cure: str = "", error: type[UserError] = UserError) -> dict[str, Any]:
    """The object that a JSON file holds, without its checksum.

    Args:
        path: of the file.
        what: description of the file for the message, such as "the run's figures".
        cure: what the user can do, a sentence.
        error: class of the error that is raised.

    Raises:
        UserError: the file is missing, unreadable, not a JSON object, or not what was written; of class `error`, one line.
    """
    named = f"{path} ({what})" if what else str(path)
    ends = f" {cure}" if cure else ""
    try:
        document = parse(path.read_bytes())
    except OSError as fault:
        raise error(f"Cannot read {named}: {fault.strerror or fault}.{ends}") from fault
    except ValueError as fault:
        raise error(f"Cannot read {named}: it is not JSON, so it is damaged.{ends}") from fault
    if not isinstance(document, dict):
        raise error(f"Cannot read {named}: it is not a JSON object.{ends}")
    stored = document.pop(CHECKSUM, None)
    if stored is not None and stored != checksum(document):
        raise error(f"Cannot read {named}: it is not what was written, it is damaged or was changed.{ends}")
    return document


def parse(content: bytes | str, *, constants: bool = False) -> Any:
    """The value of JSON text.

    Args:
        content: the text.
        constants: accept NaN and infinity, which other programs write (transformers in configurations).

    Raises:
        ValueError: it is not JSON, is nested too deeply, or is not UTF-8.
    """
    try:
        return json.loads(content, parse_constant=None if constants else _refused)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def checksum(document: Mapping[str, Any]) -> str:
    """Hex digest, 16 characters, of a document as JSON, whatever the order of its keys."""
    text = json.dumps({key: value for key, value in document.items() if key != CHECKSUM}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _encoded(sealed: Mapping[str, Any], text: str) -> bytes:
    """UTF-8; characters without UTF-8, such as half of a surrogate pair in a file's name, as escapes."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return (json.dumps(sealed, indent=2, allow_nan=False) + "\n").encode()


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def below(folder: Path, wanted: Callable[[str], bool]) -> list[Path]:
    """Paths below a folder, sorted, whose names are wanted; links to folders are not followed.

    Folders that cannot be read, or are gone when it is their turn, are skipped, unlike by `Path.rglob`.
    """
    return sorted(Path(place, name) for place, folders, files in os.walk(folder) for name in (*folders, *files) if wanted(name))


def named(folder: Path, name: str) -> list[Path]:
    """Paths below a folder, sorted, with one name."""
    return below(folder, lambda other: other == name)
