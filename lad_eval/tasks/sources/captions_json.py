"""Captions in JSON: objects, lists of objects, COCO's and Karpathy's forms, JSON lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from lad_eval.errors import DataError

Entry = tuple[str, Any]
"""A picture's name, and the value that holds its captions."""

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
        seen: a description of the file for the error text if it has no such keys.

    Raises:
        DataError: one of the two is missing.
    """
    known = find_keys_or_none(keys)
    if known is None:
        raise DataError(f"{seen}; expected a name ({shortly(NAME_KEYS)}) and a caption ({shortly(CAPTION_KEYS)}).")
    return known


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
        DataError: it holds anything else; the text begins with `where`.
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
    """The first few of many words, in one line."""
    listed = [" ".join(word.split())[:40] for word in words]
    return ", ".join(listed[:_LISTED]) + (", ..." if len(listed) > _LISTED else "")


EXPECTED = (
    "expected {image: caption}, {image: [captions]}, a list of objects with a name and a caption, COCO captions "
    '({"images": ..., "annotations": ...}) or Karpathy\'s {"images": [{"filename": ..., "sentences": ...}]}'
)
_LISTS = ("images", "annotations", "data", "items", "samples")


class _Object(dict[str, Any]):
    """A JSON object that records duplicate keys, of which a dict silently keeps the last."""

    repeated: str | None = None


def json_entries(text: str, where: str) -> Iterable[Entry]:
    """Names and captions of a JSON file.

    Raises:
        DataError: it is not JSON, or not of a known form; the text says what it holds.
    """
    try:
        content = json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise DataError(f"{where}: is nested too deeply; {EXPECTED}.") from None
    except ValueError as error:
        # JSON lines under the name of a JSON file.
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data" and text.lstrip().startswith("{"):
            return json_line_entries(text, where)
        raise DataError(f"{where}: not JSON: {error}.") from None
    if isinstance(content, list):
        return _of_list(content, where, where)
    if not isinstance(content, _Object):
        raise DataError(f"{where} is {_described(content)}; {EXPECTED}.")
    if _is_objects(content.get("images")) and _is_objects(content.get("annotations"), empty=True):
        return _coco(content["images"], content["annotations"], where)
    for key in _LISTS:
        if _is_objects(content.get(key)):
            return _of_list(content[key], where, f"{key!r} of {where}")
    return _of_object(content, where)


def json_line_entries(text: str, where: str) -> Iterator[Entry]:
    """Names and captions of JSON lines; raises as `json_entries`."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: line {number}: not JSON: {error}.") from None
        yield _of_entry(entry, where, f"{where}: line {number}")


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        made.repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
    return made


def _of_object(content: _Object, where: str) -> Iterator[Entry]:
    if content.repeated is not None:
        raise DataError(f"{where}: {content.repeated} is given twice; give its captions as a list.")
    for name, value in content.items():
        if not PurePosixPath(name).suffix and not _can_be_captions(value):
            raise DataError(f"{where} is {_described(content)}; {EXPECTED}.")
        yield _name(name, where), value


def _of_list(entries: list[Any], where: str, which: str) -> Iterator[Entry]:
    for number, entry in enumerate(entries):
        if isinstance(entry, list) and len(entry) == 2:
            yield _name(entry[0], where), entry[1]
        elif isinstance(entry, dict):
            yield _of_entry(entry, where, f"{which}: entry {number}")
        else:
            raise DataError(f"{which} is {_described(entries)}; {EXPECTED}.")


def _of_entry(entry: Any, where: str, which: str) -> Entry:
    if not isinstance(entry, dict):
        raise DataError(f"{which} is {_described(entry)}; expected an object with a name and a caption.")
    if find_keys_or_none(entry) is None and find_keys_or_none([*entry, CAPTION_KEYS[0]]) is not None:
        key, _ = find_keys([*entry, CAPTION_KEYS[0]], which)
        return _name(entry[key], where), None
    key, captions = find_keys(entry, f"{which} has the keys {shortly(entry) or 'none'}")
    name = entry[key]
    if isinstance(name, dict) and isinstance(name.get("path"), str):
        name = name["path"]
    name = _name(name, where)
    folder = entry.get("filepath")
    if key == "filename" and isinstance(folder, str) and folder and PurePosixPath(folder).name != PurePosixPath(name).name:
        name = f"{folder.rstrip('/')}/{name}"
    return name, [entry[each] for each in captions]


def _coco(images: list[dict[str, Any]], annotations: list[dict[str, Any]], where: str) -> Iterator[Entry]:
    """Captions by their ids, as `lad_eval.data.coco` orders them; images that the file does not list are left out."""
    names: dict[Any, str] = {}
    for number, image in enumerate(images):
        if not isinstance(image.get("id"), int | str) or not isinstance(image.get("file_name"), str):
            keys = shortly(image) or "none"
            raise DataError(f"{where}: entry {number} of images has the keys {keys}; expected id and file_name, as in COCO.")
        names[image["id"]] = _name(image["file_name"], where)
    captions_of: dict[Any, list[tuple[int, int, Any]]] = {}
    for number, annotation in enumerate(annotations):
        if not {"image_id", "caption"} <= annotation.keys():
            keys = shortly(annotation) or "none"
            raise DataError(
                f"{where}: entry {number} of annotations has the keys {keys}; expected image_id and caption. "
                "COCO's captions are in files as captions_val2014.json, not in those of instances."
            )
        image = annotation["image_id"]
        order = annotation.get("id")
        if isinstance(image, int | str) and image in names:
            captions_of.setdefault(image, []).append((order if isinstance(order, int) else number, number, annotation["caption"]))
    for image, name in names.items():
        if image in captions_of:
            yield name, [caption for _, _, caption in sorted(captions_of[image], key=lambda each: each[:2])]


def _name(name: Any, where: str) -> str:
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{where}: an image's name must be text, not {shortly([repr(name)])}.")
    return name


def _can_be_captions(value: Any) -> bool:
    """Whether a value has the form of captions; if not, its key is probably not the name of a picture either."""
    if isinstance(value, dict):
        return any(key in value for key in CAPTION_KEYS)
    if isinstance(value, list):
        return bool(value) and all(map(_can_be_captions, value))
    return isinstance(value, str)


def _is_objects(value: Any, *, empty: bool = False) -> bool:
    return isinstance(value, list) and (empty or bool(value)) and all(isinstance(entry, dict) for entry in value)


def _described(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with the keys {shortly(value)}" if value else "an empty object"
    if isinstance(value, list):
        kinds = sorted({_described(each) if not isinstance(each, list | dict) else type(each).__name__ for each in value})
        return f"a list of {shortly(kinds)}" if value else "an empty list"
    return {str: "text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}[type(value)]
