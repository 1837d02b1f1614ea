"""Parameters of interventions, as the command line writes them, parsed by the annotations of the class."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lad_eval.errors import UserError

_UNIONS: tuple[Any, ...] = (Union, types.UnionType)  # `Optional[int]` and `int | None`
_BOOLEANS = {"true": True, "false": False}


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text.lower()]


def _none(text: str) -> None:
    if text.lower() != "none":
        raise ValueError(text)


# In the order in which the members of a union are tried: "1" is a whole number before it is a number, and text last.
_KINDS: Mapping[Any, tuple[str, Callable[[str], Any]]] = {
    type(None): ("none", _none),
    bool: ("true or false", _boolean),
    int: ("a whole number", int),
    float: ("a number", float),
    str: ("text", str),
}


def parse_parameter(annotation: Any, text: str) -> Any:
    """The value that `text` writes for a parameter annotated as bool, int, float, str, None, a Literal or a union of these.

    In `int | float`, "1" is the whole number and "1.0" the number.

    Raises:
        ValueError: the text is not such a value.
    """
    for member in _members(annotation):
        with suppress(ValueError):
            return _parsed(member, text)
    raise ValueError(text)


def expected(annotation: Any) -> str:
    """The values that a parameter may have, in words, to follow "must be"."""
    words = [
        " or ".join(map(repr, get_args(member))) if _is_literal(member) else _KINDS[member][0] for member in _members(annotation)
    ]
    return " or ".join(words)


def parse_parameters(kind: type[Any], written: Mapping[str, str]) -> dict[str, Any]:
    """Values of parameters of a dataclass, from texts by name; every name must be one of its parameters.

    Raises:
        UserError: a text writes no value of its parameter's annotation.
    """
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, text in written.items():
        values[name] = _value(kind.name, name, hints[name], text)
    return values


def _value(owner: str, name: str, annotation: Any, text: str) -> Any:
    try:
        return parse_parameter(annotation, text)
    except ValueError:
        raise UserError(f"{name} of {owner} must be {expected(annotation)}, not {text!r}.") from None


def check_choices(intervention: Any) -> None:
    """Checks the parameters of a dataclass that are annotated with a `Literal`.

    Raises:
        UserError: a value is not among the allowed ones.
    """
    kind = type(intervention)
    for name, annotation in get_type_hints(kind).items():
        if _is_literal(annotation) and getattr(intervention, name) not in get_args(annotation):
            raise UserError(f"{name} of {kind.name} must be {expected(annotation)}, not {getattr(intervention, name)!r}.")


def check_whole(intervention: Any, name: str, least: int | None = None) -> None:
    """Checks a parameter that is a whole number, of at least `least` if that is given.

    Raises:
        UserError: it is not one.
    """
    value = getattr(intervention, name)
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        words = "a whole number" if least is None else f"a whole number of at least {least}"
        raise UserError(f"{name} of {intervention.name} must be {words}, not {value!r}.")


def parameter_defaults(kind: type[Any]) -> dict[str, Any]:
    """Parameters of an intervention's class and their defaults, without learned state."""
    return {f.name: f.default for f in fields(kind) if not f.metadata}


def _members(annotation: Any) -> list[Any]:
    members = get_args(annotation) if get_origin(annotation) in _UNIONS else (annotation,)
    order = list(_KINDS)
    return sorted(members, key=lambda member: -1 if _is_literal(member) else order.index(member))


def _parsed(member: Any, text: str) -> Any:
    if _is_literal(member):
        for option in get_args(member):
            if str(option) == text:
                return option
        raise ValueError(text)
    return _KINDS[member][1](text)


def _is_literal(annotation: Any) -> bool:
    origin: Any = get_origin(annotation)
    return bool(origin is Literal)
