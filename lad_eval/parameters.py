"""Parameters of methods and interventions: stated once, by annotations, from which texts are read and values are checked.

`Annotated[int, Count()]` names the allowed values, as do `Positive`, `Share` and `Layers`. Without a note `int` is any whole
number, `float` any finite number, `bool` true or false, `str` any text, a `Literal` one of its options; `|` joins them, also with
`None`.
"""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints, runtime_checkable

import numpy as np

from lad_eval.errors import UserError

LayerRange = Literal["upper", "all"] | tuple[int, int]
"""Decoder layers: all, the upper ones (see `methods.readout.layer_range`), or first and last, counted from 0, inclusive."""


class ParameterError(UserError):
    """A parameter that does not exist or cannot have this value."""


@runtime_checkable
class Parameter(Protocol):
    """What a parameter may be."""

    @property
    def expected(self) -> str:
        """The allowed values in words, to follow "must be"."""

    def accepts(self, value: Any) -> bool: ...

    def parse(self, text: str) -> Any:
        """The value that `text` writes. Raises ValueError if it is not one; the value may still be refused by `accepts`."""


@dataclass(frozen=True)
class Count:
    """A whole number of at least `minimum` and at most `maximum`, each if there is one."""

    minimum: int | None = 1
    maximum: int | None = None

    @property
    def expected(self) -> str:
        if self.maximum is not None:
            return f"a whole number {'' if self.minimum is None else f'from {self.minimum} '}to {self.maximum}"
        return "a whole number" if self.minimum is None else f"a whole number of at least {self.minimum}"

    def accepts(self, value: Any) -> bool:
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            return False
        return (self.minimum is None or int(value) >= self.minimum) and (self.maximum is None or int(value) <= self.maximum)

    def parse(self, text: str) -> int:
        return int(text)


@dataclass(frozen=True)
class Number:
    """A finite number."""

    expected = "a finite number"

    def accepts(self, value: Any) -> bool:
        number = isinstance(value, float | int | np.floating | np.integer) and not isinstance(value, bool)
        return number and math.isfinite(value)

    def parse(self, text: str) -> float:
        return float(text)


@dataclass(frozen=True)
class Positive(Number):
    """A finite number above zero."""

    expected = "a number above 0"

    def accepts(self, value: Any) -> bool:
        return super().accepts(value) and value > 0


@dataclass(frozen=True)
class Share(Positive):
    """A number above 0 and at most 1."""

    expected = "a number above 0 and at most 1"

    def accepts(self, value: Any) -> bool:
        return super().accepts(value) and value <= 1


@dataclass(frozen=True)
class Choice:
    """One of a few words or numbers."""

    options: tuple[Any, ...]

    @property
    def expected(self) -> str:
        return " or ".join(repr(option) for option in self.options)

    def accepts(self, value: Any) -> bool:
        return any(type(value) is type(option) and value == option for option in self.options)

    def parse(self, text: str) -> Any:
        for option in self.options:
            if str(option) == text:
                return option
        raise ValueError(text)


@dataclass(frozen=True)
class Flag:
    """True or false, written so: `bool("false")` would be true."""

    expected = "true or false"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool | np.bool_)

    def parse(self, text: str) -> bool:
        words = {"true": True, "false": False}
        if text.lower() not in words:
            raise ValueError(text)
        return words[text.lower()]


@dataclass(frozen=True)
class Text:
    """Any text."""

    expected = "text"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str)

    def parse(self, text: str) -> str:
        return text


@dataclass(frozen=True)
class Nothing:
    """None, for a parameter that may be left out."""

    expected = "none"

    def accepts(self, value: Any) -> bool:
        return value is None

    def parse(self, text: str) -> None:
        if text.lower() != "none":
            raise ValueError(text)


@dataclass(frozen=True)
class Layers:
    """A range of decoder layers, `LayerRange`."""

    expected = "'upper', 'all' or first-last, counted from 0 and inclusive, such as 3-5"

    def accepts(self, value: Any) -> bool:
        if isinstance(value, str):
            return value in ("upper", "all")
        if not isinstance(value, Sequence) or len(value) != 2:
            return False
        return all(map(Count(0).accepts, value)) and value[0] <= value[1]

    def parse(self, text: str) -> str | tuple[int, int]:
        if "-" not in text:
            return text
        first, last = text.split("-")
        return int(first), int(last)


@dataclass(frozen=True)
class Either:
    """One of several kinds; a text is read as the first that accepts it: "1" of `int | float` is the whole number."""

    kinds: tuple[Parameter, ...]

    @property
    def expected(self) -> str:
        return " or ".join(kind.expected for kind in self.kinds)

    def accepts(self, value: Any) -> bool:
        return any(kind.accepts(value) for kind in self.kinds)

    def parse(self, text: str) -> Any:
        for kind in self.kinds:
            with suppress(ValueError):
                if kind.accepts(value := kind.parse(text)):
                    return value
        raise ValueError(text)


# In the order in which the members of a union are tried: words first, a whole number before a number, any text last.
_ORDER = (Choice, Nothing, Flag, Count, Positive, Number, Layers, Text)
_PLAIN: Mapping[Any, Parameter] = {
    type(None): Nothing(),
    bool: Flag(),
    int: Count(None),
    float: Number(),
    str: Text(),
}


def parameter_of(annotation: Any) -> Parameter | None:
    """What a parameter with this annotation may be; None for an annotation that does not say."""
    if get_origin(annotation) is Annotated:
        inner, *notes = get_args(annotation)
        return next((note for note in notes if isinstance(note, Parameter)), None) or parameter_of(inner)
    if get_origin(annotation) is Literal:
        return Choice(get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for member in get_args(annotation) if (kind := parameter_of(member)) is not None]
        if len(kinds) < len(get_args(annotation)):
            return None
        return Either(tuple(sorted(kinds, key=_rank)))
    return _PLAIN.get(annotation)


def _rank(kind: Parameter) -> int:
    return next((place for place, known in enumerate(_ORDER) if isinstance(kind, known)), len(_ORDER) - 1)


def declared_by(constructor: Callable[..., None], inherited: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """The parameters that a constructor's keyword-only arguments declare, in their order.

    An argument without an annotation is the inherited parameter of its name.

    Raises:
        TypeError: an annotation does not say which values are allowed.
    """
    owner = constructor.__qualname__
    hints = _hints(constructor, owner)
    keywords = [a.name for a in inspect.signature(constructor).parameters.values() if a.kind is a.KEYWORD_ONLY]
    return {
        name: inherited[name] if name not in hints and name in inherited else _declared(owner, name, hints.get(name))
        for name in keywords
    }


def fields_of(kind: type[Any]) -> dict[str, Parameter]:
    """The parameters that a dataclass's fields declare, in their order; fields with metadata are not parameters.

    Raises:
        TypeError: an annotation does not say which values are allowed.
    """
    hints = _hints(kind, kind.__qualname__)
    return {
        field.name: _declared(kind.__qualname__, field.name, hints[field.name]) for field in fields(kind) if not field.metadata
    }


def _hints(declaring: Any, owner: str) -> dict[str, Any]:
    try:
        return get_type_hints(declaring, include_extras=True)
    except NameError as error:
        raise TypeError(f"the annotations of {owner} cannot be read when it runs: {error}") from error


def _declared(owner: str, name: str, annotation: Any) -> Parameter:
    parameter = parameter_of(annotation)
    if parameter is None:
        written = "" if annotation is None else f", not with {annotation.__name__ if type(annotation) is type else annotation}"
        raise TypeError(f"{name} of {owner} must be annotated with its allowed values, such as Annotated[int, Count()]{written}")
    return parameter


def parse_value(owner: str, name: str, parameter: Parameter, text: str) -> Any:
    """The typed value that `text` writes for parameter `name` of the method or intervention `owner`.

    Raises:
        ParameterError: the text writes no value that the parameter accepts.
    """
    try:
        value = parameter.parse(text.strip())
    except ValueError:
        raise _unacceptable(owner, name, parameter, text) from None
    if not parameter.accepts(value):
        raise _unacceptable(owner, name, parameter, text)
    return value


def parse_values(owner: str, parameters: Mapping[str, Parameter], texts: Mapping[str, str]) -> dict[str, Any]:
    """The typed values that texts write for parameters of a method or intervention.

    Raises:
        ParameterError: `owner` has no parameter of a name, or a text writes no value that it accepts.
    """
    check_names(owner, texts, parameters)
    return {name: parse_value(owner, name, parameters[name], text) for name, text in texts.items()}


def check_names(owner: str, names: Sequence[str] | Mapping[str, Any], known: Sequence[str] | Mapping[str, Any]) -> None:
    """Refuses names of parameters that `owner` does not have.

    Raises:
        ParameterError: there are some.
    """
    if unknown := [name for name in names if name not in known]:
        has = f"Its parameters are {', '.join(known)}." if known else "It has no parameters."
        raise ParameterError(f"{owner} has no parameter {' or '.join(map(repr, unknown))}. {has}")


def check_values(owner: str, parameters: Mapping[str, Parameter], values: Mapping[str, Any]) -> None:
    """Refuses values that their parameters do not accept.

    Raises:
        ParameterError: there is one.
    """
    for name, parameter in parameters.items():
        if not parameter.accepts(values[name]):
            raise _unacceptable(owner, name, parameter, values[name])


def _unacceptable(owner: str, name: str, parameter: Parameter, value: Any) -> ParameterError:
    return ParameterError(f"{name} of {owner} must be {parameter.expected}, not {value!r}.")
