"""Our own JSON lines: every line has a checksum, which also covers the header that says what produced it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from lad_eval.files.documents import CHECKSUM, parse

_SEAL = re.compile(rb', "checksum": "([0-9a-f]{16})"\}')
_LETTERS = len(f', "{CHECKSUM}": "{"0" * 16}"}}')


def sealed(document: Mapping[str, Any], salt: str = "") -> bytes:
    """One line with its line break; its last key is the checksum of the content before it.

    Args:
        document: not empty, and without that key.
        salt: further content of the checksum, see `salt_of`.

    Raises:
        ValueError: a value is not JSON, such as NaN.
    """
    plain = json.dumps(document, allow_nan=False).encode()
    return plain[:-1] + f', "{CHECKSUM}": "{_digest(plain, salt)}"}}\n'.encode()


def opened(line: bytes, salt: str = "", *, must: bool = False) -> dict[str, Any] | None:
    """The document of one line; None if the line is incomplete, has a wrong checksum, or is not a JSON object.

    Args:
        line: without its line break.
        salt: as for `sealed`.
        must: refuse lines without a checksum, as earlier versions wrote them.
    """
    seal = _SEAL.fullmatch(line, max(0, len(line) - _LETTERS))
    if seal is not None:
        line = line[: seal.start()] + b"}"
        if _digest(line, salt) != seal.group(1).decode():
            return None
    elif must:
        return None
    try:
        document = parse(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def is_sealed(line: bytes) -> bool:
    """Whether a line has a checksum, right or wrong."""
    return _SEAL.fullmatch(line, max(0, len(line) - _LETTERS)) is not None


def salt_of(header: Mapping[str, Any]) -> str:
    """The salt of the lines below a header: a line copied from a file with another header has a wrong checksum here."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def _digest(plain: bytes, salt: str) -> str:
    return hashlib.sha256(salt.encode() + plain).hexdigest()[:16]
