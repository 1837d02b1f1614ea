"""What files of captions call names and captions, and how a caption can stand in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from lad_eval.errors import DataError

Entry = tuple[str, Any]
"""A picture's name and what stands for its captions."""

NAME_KEYS = ("image", "file_name", "filename", "image_name", "image_path", "path", "file_path", "file", "img")
CAPTION_KEYS = ("caption", "captions", "text", "texts", "sentence", "sentences", "comment", "description", "raw")
NUMBER_KEYS = ("comment_number", "caption_number", "caption_index", "sentid")
"""Of columns that number the captions of a picture."""

_NUMBERED = re.compile(r"(?:caption|text|sentence|comment)s?[ _-]?\d+")
_LISTED = 8


def find_keys(keys: Iterable[str], seen: str) -> tuple[str, tuple[str, ...]]:
    """The key of names, and the key of captions or, of columns such as `caption_0`, `caption_1`, all of them.

    Args:
        keys: of an object, or columns of a table; capitals and spaces around them do not matter.
        seen: what to say of the file if there are no such keys.

    Raises:
        DataError: one of the two is missing.
    """
    found = find_keys_or_none(keys)
    if found is None:
        raise DataError(f"{seen}; expected a name ({shortly(NAME_KEYS)}) and a caption ({shortly(CAPTION_KEYS)}).")
    return found


def find_keys_or_none(keys: Iterable[str]) -> tuple[str, tuple[str, ...]] | None:
    """As `find_keys`; None where one of the two is missing."""
    known = {key.strip().lower(): key for key in reversed(list(keys))}
    name = next((known[key] for key in NAME_KEYS if key in known), None)
    caption = next(((known[key],) for key in CAPTION_KEYS if key in known), None)
    numbered = tuple(known[key] for key in reversed(known) if _NUMBERED.fullmatch(key))
    captions = caption or numbered
    return None if name is None or not captions else (name, captions)


def caption_texts(where: str, value: Any) -> list[str]:
    """The captions in a value: text, an object that holds text under one of `CAPTION_KEYS`, or a list of these; stripped.

    Raises:
        DataError: there is something else in it; the text begins with `where`.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, dict):
        key = next((key for key in CAPTION_KEYS if key in value), None)
        return [] if key is None else caption_texts(where, value[key])
    if isinstance(value, Sequence):
        return [text for each in value for text in caption_texts(where, each)]
    raise DataError(f"{where}: its caption must be text, not {shortly([repr(value)])}.")


def shortly(words: Iterable[str]) -> str:
    """The first of many words, one line."""
    listed = [" ".join(word.split())[:40] for word in words]
    return ", ".join(listed[:_LISTED]) + (", ..." if len(listed) > _LISTED else "")
