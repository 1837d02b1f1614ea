"""Text that others wrote: captions, ids, names. It may hold anything, and must stay text."""

from __future__ import annotations

import re

# Control characters have no look, and some of them (NUL) no place in HTML; tab and line breaks become spaces.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_FOLDERS = re.compile(r"(?<![\w:/.])(?:[A-Za-z]:)?[\\/](?:[^\\/:;,'\"\n]*[^\\/:;,'\"\s][\\/])+")
LONGEST = 2000
CAPTION = 400


def clean(text: object) -> str:
    """The text with nothing in it that cannot be written as UTF-8 or shown, at most `LONGEST` characters.

    Marks such as < and & stay: escaping is the business of the template engine, the XML writer and the JSON writer.
    """
    whole = str(text).encode("utf-8", "replace").decode("utf-8")
    return _cut(_CONTROL.sub("\ufffd", whole).strip(), LONGEST)


def caption_text(caption: str) -> str:
    """A caption, clean and at most `CAPTION` characters."""
    return _cut(clean(caption), CAPTION)


def without_paths(text: str) -> str:
    """A message on one line, absolute paths cut to their last part: a report is read elsewhere, and by others."""
    return _FOLDERS.sub("", " ".join(text.split()))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
