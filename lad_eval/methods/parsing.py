"""Which candidate does a free-text reply name? Strictly: exactly one, or none."""

from __future__ import annotations

import re
from collections.abc import Sequence

END_OF_THOUGHT = "</think>"
_THOUGHT = "<think>"
# Names of candidates that are words of the language too; followed by a word they are one: "A red dog", "I see".
_WORDS = frozenset({"a", "A", "I"})
_GOES_ON = re.compile(r"[ \t]+(?!(?:or|and|nor|is|but)\b)([^\W\d_]{2,})", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.,])[+-]?\d+(?:[.,]\d+)*(?!\w)")


def parse_reply(reply: str, identifiers: Sequence[str], *, thoughtful: bool = False) -> int | None:
    """0-based position of the one candidate that a reply names; None if it names none, several, or a number that is no candidate.

    A candidate is named where its identifier stands as a word of its own; naming it twice is naming it once. Where candidates are
    numbers, any other number ("5" of 4, "2.5", "-1") makes the reply unparsable. Words such as "second" may begin with a capital.

    Args:
        reply: as the model wrote it.
        identifiers: of the N candidates, in displayed order.
        thoughtful: the reply may begin with a thought in <think> tags, and what counts is what follows its end; a thought
            without an end leaves no answer.
    """
    text = reply
    if thoughtful:
        text = reply.rpartition(END_OF_THOUGHT)[2]
        if _THOUGHT in text:
            return None
    named = _numbers(text) if all(name.isdecimal() for name in identifiers) else _words(text, identifiers)
    if len(named) != 1:
        return None
    (name,) = named
    return list(identifiers).index(name) if name in identifiers else None


def _numbers(text: str) -> set[str]:
    return {found.group() for found in _NUMBER.finditer(text)}


def _words(text: str, identifiers: Sequence[str]) -> set[str]:
    """Identifiers that stand in the text as words; "twenty-first" is not "first"."""
    longest_first = sorted(identifiers, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w'’]|-\w)", _flags(identifiers))
    named = set()
    for found in pattern.finditer(text):
        name = found.group()
        if name in _WORDS and (next_word := _GOES_ON.match(text, found.end())) and next_word[1] not in identifiers:
            continue
        named.add(name if name in identifiers else name.lower())
    return named


def _flags(identifiers: Sequence[str]) -> re.RegexFlag:
    ordinals = all(name.islower() and len(name) > 2 for name in identifiers)
    return re.IGNORECASE if ordinals else re.RegexFlag(0)
