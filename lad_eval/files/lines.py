"""Lines of JSON of our own: every line carries a checksum, which also binds it to the header that says what made it."""

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
    """One line, its line break included, whose last key is the checksum of what stands before it.

    Args:
        document: not empty, and without that key.
        salt: what else the line belongs to, see `salt_of`.

    Raises:
        ValueError: a value is not JSON, such as NaN.
    """
    plain = json.dumps(document, allow_nan=False).encode()
    return plain[:-1] + f', "{CHECKSUM}": "{_digest(plain, salt)}"}}\n'.encode()


def opened(line: bytes, salt: str = "", *, must: bool = False) -> dict[str, Any] | None:
    """The document of one line; None if the line is not whole, is not what was written, or is not a JSON object.

    Args:
        line: without its line break.
        salt: as it was given to `sealed`.
        must: a line without a checksum, as earlier versions wrote them, does not count.
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
    """Whether a line carries a checksum, right or wrong."""
    return _SEAL.fullmatch(line, max(0, len(line) - _LETTERS)) is not None


def salt_of(header: Mapping[str, Any]) -> str:
    """What binds lines to the header above them: a line copied from a file with another header is not a line of this one."""
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def _digest(plain: bytes, salt: str) -> str:
    return hashlib.sha256(salt.encode() + plain).hexdigest()[:16]
