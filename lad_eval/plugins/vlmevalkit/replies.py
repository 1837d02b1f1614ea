"""Which candidate a reply names; a reply that names none, or more than one, is unparsable and never guessed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from lad_eval.metrics.predictions import UNPARSABLE

_WHOLE = re.compile(r"\d+\.0")
_MARKS = " \t\r\n.,:;!?()[]{}<>\"'`*_#-"
_LEAD = r"(?:answer|index|image|picture|option|choice|number)\s*(?:is|:|=|#)*\s*(?:image|picture|option|number|index|:)*"


def parse_reply(reply: Any, identifiers: Sequence[str]) -> int:
    """The 0-based position that a reply names, or UNPARSABLE.

    Accepted are, in this order: the identifier alone, whatever punctuation stands around it; the identifier behind a word such as
    "answer" or "image"; the identifier at the beginning, set off by punctuation. Each must name one candidate only; "2 or 3" and
    "image 2 is like image 3" name none. Of numbers, which say nothing else in a sentence, one that occurs alone is enough.

    Args:
        reply: a cell of a prediction file: spreadsheets turn "2" into a number and "" into NaN.
        identifiers: names of the candidates in displayed order.
    """
    text = plain(reply)
    where = {name.lower(): position for position, name in enumerate(identifiers)}
    if (alone := text.strip(_MARKS).lower()) in where:
        return where[alone]
    names = "|".join(re.escape(name) for name in sorted(identifiers, key=len, reverse=True))
    token = rf"(?<![\w])[(\[*\"'`]*({names})(?![\w])"
    if all(name.isdigit() for name in identifiers):
        numbers = set(re.findall(r"\d+(?:\.\d+)?", text))
        return where.get(next(iter(numbers)), UNPARSABLE) if len(numbers) == 1 else UNPARSABLE
    behind = {found.lower() for found in re.findall(_LEAD + token, text, flags=re.IGNORECASE)}
    if behind:
        return where[behind.pop()] if len(behind) == 1 else UNPARSABLE
    first = re.match(rf"[\s(\[*\"'`]*({names})[)\].,:;*\"'`\n]", text)
    if first is None:
        return UNPARSABLE
    others = set(re.findall(token, text)) - {first.group(1)}
    return UNPARSABLE if others else where[first.group(1).lower()]


def plain(cell: Any) -> str:
    """A cell as the text it was written from; "" for an empty one."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    text = str(cell)
    return text.removesuffix(".0") if _WHOLE.fullmatch(text) else text
