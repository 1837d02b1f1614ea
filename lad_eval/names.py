"""The one syntax of names with parameters: `sofa(sigma=0.3)+lad(top_k=1)`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lad_eval.errors import UserError

JOIN = "+"
OUTSIDE_BRACKETS = r"(?![^()]*\))"
_JOINED = re.compile(r"\+" + OUTSIDE_BRACKETS)
_PART = re.compile(r"([^()]*)(?:\(([^()]*)\))?")


class Part(NamedTuple):
    """A name and the texts of its parameters."""

    name: str
    settings: Mapping[str, str]

    def __str__(self) -> str:
        return spell(self.name, self.settings)


def spell(name: str, settings: Mapping[str, Any]) -> str:
    """A name with its parameters: `lad(layers=3-5, top_k=1)`; a pair is written as a range."""
    written = ", ".join(f"{key}={'-'.join(map(str, v)) if isinstance(v, tuple) else v}" for key, v in settings.items())
    return f"{name}({written})" if written else name


def parse_parts(text: str) -> list[Part]:
    """The parts that "+" joins, in their order; underscores of names are hyphens.

    Raises:
        UserError: a part is empty, a bracket is not closed, a parameter has no value or stands twice, or the text is of the
            form that was in use before, `sofa:sigma=0.3` or `lad.top_k=1`; that error has the right form.
    """
    return [_part(part.strip(), text) for part in _JOINED.split(text)]


def _part(part: str, whole: str) -> Part:
    if not part:
        raise UserError(f"{whole!r} has an empty part; join names of `lad-eval ls methods` by {JOIN}.")
    match = _PART.fullmatch(part)
    if match is None or not match[1].strip():
        raise UserError(
            f"{whole!r}: parameters stand in brackets behind the name they belong to, such as sofa(sigma=0.3)+lad(top_k=1)."
        )
    if (now := renewed(whole)) != whole:
        raise UserError(f"{whole!r} is not the form of parameters: write '{now}'.")
    name = match[1].strip().replace("_", "-")
    settings: dict[str, str] = {}
    if match[2] is not None and not match[2].strip():
        raise UserError(f"{whole!r} has brackets without a parameter: write {name}, or {name}(parameter=value, ...).")
    for setting in () if match[2] is None else match[2].split(","):
        key, equals, value = (piece.strip() for piece in setting.partition("="))
        if not (equals and key and value):
            raise UserError(f"{whole!r} {_lacking(name, key, value)}.")
        if key in settings:
            raise UserError(f"{whole!r} gives {key!r} twice, and must give each parameter once: {name}({key}=value).")
        settings[key] = value
    return Part(name, settings)


def _lacking(name: str, key: str, value: str) -> str:
    """What a setting lacks, and the cure."""
    if key.isidentifier():
        return f"gives {key!r} no value: write {name}({key}=value)"
    if key or value:
        return f"does not say what is {key or value}: write {name}(parameter={key or value})"
    return f"has an empty parameter: write {name}(parameter=value)"


_DOTTED = re.compile(r"([A-Za-z][\w-]*)\.([A-Za-z_]\w*)\s*=\s*([^()]*)")
_COLON = re.compile(r"([A-Za-z][\w-]*)((?:\s*:[^:+()]*)+)")


def renewed(text: str) -> str:
    """A text of the form that was in use before, in today's: `sofa:sigma=0.3:every=4` -> `sofa(sigma=0.3, every=4)`."""
    parts = []
    for part in map(str.strip, _JOINED.split(text)):
        if match := _COLON.fullmatch(part):
            settings = [piece.strip() for piece in match[2].split(":")[1:]]
            if all(re.fullmatch(r"[A-Za-z_]\w*(\s*=\s*\S+)?", setting) for setting in settings):
                parts.append(f"{match[1]}({', '.join(s if '=' in s else s + '=value' for s in settings)})")
                continue
        elif match := _DOTTED.fullmatch(part):
            parts.append(f"{match[1]}({match[2]}={match[3].strip() or 'value'})")
            continue
        parts.append(part)
    return JOIN.join(parts) if parts != [part.strip() for part in _JOINED.split(text)] else text


def joined(parts: Iterable[object]) -> str:
    """The text of several parts."""
    return JOIN.join(map(str, parts))
