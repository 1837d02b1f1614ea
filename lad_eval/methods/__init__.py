"""How an answer is decided: arithmetic on stored evidence, numpy only.

A method is one class in one file (see `base.Method`) and one line in `METHODS`; `conformance` holds the laws it must keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from lad_eval.errors import UnknownNameError
from lad_eval.methods.attention_readouts import PurifiedAttention, RawAttention
from lad_eval.methods.averaging import PermutationAverage
from lad_eval.methods.base import Method, MethodWarning, NotCalibratedError
from lad_eval.methods.lad import LAD, NoVisualSignalWarning
from lad_eval.methods.parameters import LayerRange, ParameterError, parse_value, unknown
from lad_eval.methods.pride import PriDe
from lad_eval.methods.readout import FewLayersWarning
from lad_eval.methods.vanilla import Vanilla

__all__ = [
    "LAD",
    "METHODS",
    "FewLayersWarning",
    "LayerRange",
    "Method",
    "MethodWarning",
    "NamedMethod",
    "NoVisualSignalWarning",
    "NotCalibratedError",
    "ParameterError",
    "PermutationAverage",
    "PriDe",
    "PurifiedAttention",
    "RawAttention",
    "Vanilla",
    "describe_method",
    "make_method",
    "method_names",
    "parse_setting",
]


class NamedMethod(NamedTuple):
    """A class and the parameters that a name stands for; the rest are the class's defaults."""

    method: type[Method]
    preset: Mapping[str, Any]
    summary: str


def _named(method: type[Method], summary: str = "", **preset: Any) -> NamedMethod:
    return NamedMethod(method, MappingProxyType(preset), summary or (method.__doc__ or "").strip().splitlines()[0])


METHODS: Mapping[str, NamedMethod] = MappingProxyType(
    {
        "vanilla": _named(Vanilla),
        "pride": _named(PriDe),
        "lad": _named(LAD),
        "lad-paper": _named(
            LAD,
            "LAD with the equations as printed: all layers, no delimiters, means of logs and probabilities as in the paper.",
            layers="all",
            attention_mean="log",
            bias_mean="probability",
            mixture="probability",
            span="image",
        ),
        "raw-attention": _named(RawAttention),
        "purified-attention": _named(PurifiedAttention),
        "permutation-average": _named(PermutationAverage),
    }
)


def method_names() -> tuple[str, ...]:
    """Names that `make_method` takes, in the order of the tables."""
    return tuple(METHODS)


def describe_method(name: str) -> str:
    """One line on a method.

    Raises:
        UnknownNameError: no method has this name.
    """
    return _entry(name).summary


def make_method(name: str, **overrides: Any) -> Method:
    """A new method by its name, its preset changed by `overrides`.

    Raises:
        UnknownNameError: no method has this name.
        ParameterError: the method has no such parameter, or it cannot have this value.
    """
    entry = _entry(name)
    if strangers := [key for key in overrides if key not in entry.method.parameters]:
        raise unknown(name, strangers, list(entry.method.parameters))
    method = entry.method(**{**entry.preset, **overrides})
    method.check()
    return method


def parse_setting(text: str) -> tuple[str, str, Any]:
    """Method name, parameter and typed value of a setting such as "lad.top_k=4", "lad.layers=3-5" or "lad.layers=all".

    Raises:
        UnknownNameError: no method has this name.
        ParameterError: the text is no setting, the method has no such parameter, or it cannot have this value.
    """
    target, equals, value = text.partition("=")
    name, dot, parameter = target.strip().rpartition(".")
    if not (equals and dot and name and parameter and value.strip()):
        raise ParameterError(f"{text!r} is no setting: write method.parameter=value, such as lad.top_k=4.")
    known = _entry(name).method.parameters
    if parameter not in known:
        raise unknown(name, [parameter], list(known))
    return name, parameter, parse_value(name, parameter, known[parameter], value)


def _entry(name: str) -> NamedMethod:
    if name not in METHODS:
        raise UnknownNameError("method", name, METHODS)
    return METHODS[name]
