"""Kinds of method parameters: what values they take, and how the command line writes them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

import numpy as np

from lad_eval.attention.interventions import Intervention
from lad_eval.errors import UserError

LayerRange = Literal["upper", "all"] | tuple[int, int]
"""Decoder layers: all, the upper ones (see `readout.layer_range`), or first and last, counted from 0, inclusive."""


class ParameterError(UserError):
    """A method parameter that does not exist or cannot have this value."""


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
    """A whole number of at least `minimum`, and at most `maximum` if there is one."""

    minimum: int = 1
    maximum: int | None = None

    @property
    def expected(self) -> str:
        if self.maximum is not None:
            return f"a whole number from {self.minimum} to {self.maximum}"
        return f"a whole number of at least {self.minimum}"

    def accepts(self, value: Any) -> bool:
        return _is_whole(value) and value >= self.minimum and (self.maximum is None or value <= self.maximum)

    def parse(self, text: str) -> int:
        return int(text)


@dataclass(frozen=True)
class Positive:
    """A finite number above zero."""

    @property
    def expected(self) -> str:
        return "a number above 0"

    def accepts(self, value: Any) -> bool:
        return (
            isinstance(value, float | int | np.floating | np.integer)
            and not isinstance(value, bool)
            and 0 < float(value) < math.inf
        )

    def parse(self, text: str) -> float:
        return float(text)


@dataclass(frozen=True)
class Share:
    """A number above 0 and at most 1."""

    @property
    def expected(self) -> str:
        return "a number above 0 and at most 1"

    def accepts(self, value: Any) -> bool:
        return Positive().accepts(value) and float(value) <= 1

    def parse(self, text: str) -> float:
        return float(text)


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    options: tuple[str, ...]

    @property
    def expected(self) -> str:
        return " or ".join(repr(option) for option in self.options)

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and value in self.options

    def parse(self, text: str) -> str:
        return text


@dataclass(frozen=True)
class Layers:
    """A range of decoder layers, `LayerRange`."""

    @property
    def expected(self) -> str:
        return "'upper', 'all' or first-last, counted from 0 and inclusive, such as 3-5"

    def accepts(self, value: Any) -> bool:
        if isinstance(value, str):
            return value in ("upper", "all")
        if not isinstance(value, Sequence) or len(value) != 2:
            return False
        return all(map(_is_whole, value)) and 0 <= value[0] <= value[1]

    def parse(self, text: str) -> str | tuple[int, int]:
        if "-" not in text:
            return text
        first, last = text.split("-")
        return int(first), int(last)


@dataclass(frozen=True)
class Flag:
    """True or false, written so: `bool("false")` would be true."""

    @property
    def expected(self) -> str:
        return "true or false"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, bool | np.bool_)

    def parse(self, text: str) -> bool:
        words = {"true": True, "false": False}
        if text.lower() not in words:
            raise ValueError(text)
        return words[text.lower()]


def declared(constructor: Callable[..., None], inherited: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """The parameters that a constructor's keyword-only arguments declare, in their order.

    An argument's annotation is its only statement: `Annotated[int, Count()]` names the allowed values, a `Literal` of strings
    lists them, and `bool` is true or false. Without an annotation it is the inherited parameter of its name.

    Raises:
        TypeError: an annotation does not say which values are allowed.
    """
    hints = get_type_hints(constructor, include_extras=True)
    keywords = [a.name for a in inspect.signature(constructor).parameters.values() if a.kind is a.KEYWORD_ONLY]
    return {
        name: inherited[name]
        if name not in hints and name in inherited
        else _kind(constructor.__qualname__, name, hints.get(name))
        for name in keywords
    }


def _kind(owner: str, name: str, annotation: Any) -> Parameter:
    if annotation is bool:
        return Flag()
    if get_origin(annotation) is Literal:
        return Choice(get_args(annotation))
    if get_origin(annotation) is Annotated:
        for note in get_args(annotation)[1:]:
            if isinstance(note, Parameter):
                return note
    raise TypeError(f"{name} of {owner} must be annotated with its allowed values, such as Annotated[int, Count()].")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def parse_value(owner: str, name: str, parameter: Parameter, text: str) -> Any:
    """The typed value that `text` writes for parameter `name` of method `owner`.

    Raises:
        ParameterError: the text writes no value that the parameter accepts.
    """
    try:
        value = parameter.parse(text.strip())
    except ValueError:
        raise unacceptable(owner, name, parameter, text) from None
    if not parameter.accepts(value):
        raise unacceptable(owner, name, parameter, text)
    return value


def unacceptable(owner: str, name: str, parameter: Parameter, value: Any) -> ParameterError:
    return ParameterError(f"{name} of {owner} must be {parameter.expected}, not {value!r}.")


def unknown(owner: str, names: Sequence[str], known: Sequence[str]) -> ParameterError:
    has = f"Its parameters are {', '.join(known)}." if known else "It has no parameters."
    return ParameterError(f"{owner} has no parameter {' or '.join(map(repr, names))}. {has}")


@dataclass(frozen=True)
class Condition:
    """Prompt variants of the question, and a change of the model's attention. Evidence of two conditions never mixes.

    Attributes:
        prompt_variants: names of `lad_eval.tasks.prompts.PROMPT_VARIANTS`.
        intervention: under which the model is run.
    """

    prompt_variants: tuple[str, ...] = ()
    intervention: Intervention | None = None

    @property
    def label(self) -> str:
        """As names have it, "instruction+sofa(sigma=0.3)"; empty for the question and the model as they are."""
        return "+".join([*self.prompt_variants, *([] if self.intervention is None else [self.intervention.label])])

    @property
    def learns(self) -> bool:
        """Whether its intervention must be calibrated before the model is run under it."""
        return self.intervention is not None and not self.intervention.is_ready

    def intervention_samples(self, candidates: int) -> int:
        """How many calibration samples of so many images each its intervention is to learn from; 0 where it learns nothing."""
        return 0 if self.intervention is None else self.intervention.calibration_samples_wanted(candidates)

    def document(self) -> dict[str, Any]:
        """JSON-serialisable facts."""
        return {
            "wordings": list(self.prompt_variants),
            "intervention": None if self.intervention is None else self.intervention.facts,
        }


PLAIN = Condition()
