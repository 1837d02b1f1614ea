"""Text of unknown origin on a terminal: control characters are shown, not obeyed; what the terminal cannot write degrades."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
import sys
from typing import Any

# C0 and C1 controls and DEL; marks that reorder or hide what follows (bidirectional overrides and isolates, zero-width
# characters, line and paragraph separators, the byte order mark, tags); halves of surrogate pairs.
_CONTROL = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff"
)
_CONTROLS = re.compile(f"[{_CONTROL}]")
_CONTROLS_AND_BREAKS = re.compile(f"[\t\n{_CONTROL}]")
_ASCII = {"–": "-", "—": "-", "─": "-", "━": "-", "│": "|", "…": ".", "·": "-", "±": "+", "×": "x", "†": "+", "“": '"', "”": '"'}
"""Signs of our own tables by one letter each, so that columns stay in line."""
_DEGRADE = "lad_eval.degrade"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def visible(text: str, *, line: bool = True) -> str:
    r"""The text with every control character as an escape, such as `\x1b`.

    Args:
        text: of any origin: a caption, a file's name, a model's reply, an error's text.
        line: line breaks and tabs too are shown as escapes; False leaves them.
    """
    return (_CONTROLS_AND_BREAKS if line else _CONTROLS).sub(_escape, text)


def counted(count: int, noun: str) -> str:
    """`1 method`, `3 methods`; nouns take an s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def plain_cell(value: Any) -> Any:
    """A value of a CSV file; before text that a spreadsheet would take for a formula stands an apostrophe."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if value.startswith(_FORMULA) else text


def write(text: str) -> None:
    """Text without styles, of several lines, to stdout; what is not ours in it cannot move the cursor or ring the bell."""
    sys.stdout.write(visible(text, line=False))


def write_json(document: str) -> None:
    """A JSON document to stdout, in ASCII, which every terminal and every pipe takes."""
    sys.stdout.write(json.dumps(json.loads(document), indent=2) + "\n")


def degrade_output() -> None:
    """Lets stdout and stderr write what their encoding has not: signs of our tables by a plain one, the rest as an escape."""
    codecs.register_error(_DEGRADE, _plainer)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            with contextlib.suppress(ValueError, OSError):  # closed, or not to be changed any more
                reconfigure(errors=_DEGRADE)


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode()


def _plainer(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    refused = error.object[error.start : error.end]
    return "".join(_ASCII.get(sign) or sign.encode("unicode_escape", "surrogatepass").decode() for sign in refused), error.end
