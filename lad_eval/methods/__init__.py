"""How an answer is decided: arithmetic on stored evidence, numpy only.

A method is one class in one file (see `base.Method`) and one line in `METHODS`; `conformance` holds the laws it must keep.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lad_eval.attention.interventions import INTERVENTIONS
from lad_eval.errors import UserError
from lad_eval.methods.base import Method, MethodWarning, NotCalibratedError
from lad_eval.methods.compose import (
    PROTOCOLS,
    REPLYING,
    VIEWS,
    WORDED,
    NamedMethod,
    compose,
    composition,
    named,
    parameters_of,
    part_names,
)
from lad_eval.methods.lad import LAD, NoVisualSignalWarning, UnlabelledLAD
from lad_eval.methods.parameters import PLAIN, Condition, LayerRange, ParameterError, parse_value, unknown
from lad_eval.methods.pride import PriDe, PriDeOriginal
from lad_eval.methods.readout import FewLayersWarning, PurifiedAttention, RawAttention
from lad_eval.methods.replying import ChainOfThought, Generate, SelfConsistency
from lad_eval.methods.views import Majority, OverViews, PermutationAverage, RandomAverage, Vanilla

__all__ = [
    "DEFAULT_METHODS",
    "LAD",
    "METHODS",
    "PLAIN",
    "ChainOfThought",
    "Condition",
    "FewLayersWarning",
    "Generate",
    "LayerRange",
    "Majority",
    "Method",
    "MethodWarning",
    "NamedMethod",
    "NoVisualSignalWarning",
    "NotCalibratedError",
    "OverViews",
    "ParameterError",
    "PermutationAverage",
    "PriDe",
    "PriDeOriginal",
    "PurifiedAttention",
    "RandomAverage",
    "RawAttention",
    "SelfConsistency",
    "UnlabelledLAD",
    "Vanilla",
    "canonical_name",
    "describe_method",
    "is_method",
    "make_method",
    "method_names",
    "parse_setting",
    "part_names",
    "with_parameters",
]


DEFAULT_METHODS = ("vanilla", "pride", "lad", "raw-attention", "purified-attention")
"""What a run compares unless told otherwise: one forward pass serves all of them; averaging over orders would cost N."""

METHODS: Mapping[str, NamedMethod] = MappingProxyType(
    {
        "vanilla": named(Vanilla),
        "pride": named(PriDe),
        "lad": named(LAD),
        "lad-paper": named(
            LAD,
            "LAD with the equations as printed: all layers, no delimiters, means of logs and probabilities as in the paper.",
            layers="all",
            attention_mean="log",
            bias_mean="probability",
            mixture="probability",
            span="image",
        ),
        "lad-unlabelled": named(UnlabelledLAD),
        "raw-attention": named(RawAttention),
        "purified-attention": named(PurifiedAttention),
        "permutation-average": named(PermutationAverage),
    }
)


def method_names() -> tuple[str, ...]:
    """Names of the methods that decide from the evidence of the question as it is, in the order of the tables."""
    return tuple(METHODS)


def canonical_name(name: str) -> str:
    """The one spelling of a method's name: `lad+instruction` and `instruction+lad` are `instruction+lad`.

    Raises:
        UserError: it is no method's name.
    """
    if name in METHODS:
        return name
    plain, changes = _split(name)
    return with_parameters(plain, changes)


def with_parameters(name: str, changes: Mapping[str, Any]) -> str:
    """The name of a method with parameters of its own: `cot(max_new_tokens=64)`."""
    written = ", ".join(f"{key}={'-'.join(map(str, v)) if isinstance(v, tuple) else v}" for key, v in changes.items())
    return f"{name}({written})" if written else name


def is_method(name: str) -> bool:
    """Whether `make_method` takes the name."""
    try:
        canonical_name(name)
    except UserError:
        return False
    return True


def describe_method(name: str) -> str:
    """One line on a method, or on a part of one.

    Raises:
        UnknownNameError: no method has this name.
    """
    name = _split(name)[0]
    if name in METHODS:
        return METHODS[name].summary
    described = {**WORDED, **{key: entry.summary for key, entry in {**PROTOCOLS, **VIEWS, **REPLYING}.items()}}
    described |= {key: (kind.__doc__ or "").strip().splitlines()[0] for key, kind in INTERVENTIONS.items()}
    parts = composition(name, METHODS).name.split("+")
    return " ".join(METHODS[part].summary if part in METHODS else described[part.partition(":")[0]] for part in parts)


def make_method(name: str, **overrides: Any) -> Method:
    """A new method by its name, its preset changed by `overrides`.

    Args:
        name: of a method, or of several parts joined by "+", see `compose`; its `condition` says how the model must be asked.
            Parameters may follow in brackets, "cot(max_new_tokens=64)".
        overrides: parameters.

    Raises:
        UnknownNameError: no method has this name.
        ParameterError: the method has no such parameter, or it cannot have this value, or the parts do not go together.
    """
    name, changes = _split(name)
    overrides = {**changes, **overrides}
    if name not in METHODS:
        return compose(composition(name, METHODS), METHODS, overrides)
    entry = METHODS[name]
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
    match = _SETTING.fullmatch(text.strip())
    if match is None:
        raise ParameterError(f"{text!r} is no setting: write method.parameter=value, such as lad.top_k=4.")
    name, parameter, value = match.groups()
    if name not in METHODS:
        name = composition(name, METHODS).name
    return name, parameter, _typed(name, parameter, value)


def _split(name: str) -> tuple[str, dict[str, Any]]:
    """The plain name of a method, in its one spelling, and the parameters in brackets behind it.

    Raises:
        UserError: it is no method's name, or a parameter does not exist or cannot have its value.
    """
    if name in METHODS:
        return name, {}
    match = _BRACKETS.fullmatch(name.strip())
    if match is None:
        return composition(name, METHODS).name, {}
    plain = composition(match[1], METHODS).name
    changes: dict[str, Any] = {}
    for text in match[2].split(","):
        parameter, equals, value = (part.strip() for part in text.partition("="))
        if not equals or parameter in changes:
            raise ParameterError(f"{name!r} must give each parameter once: {plain}(parameter=value, ...).")
        changes[parameter] = _typed(plain, parameter, value)
    return plain, changes


def _typed(name: str, parameter: str, value: str) -> Any:
    """The value that a text gives a parameter of the method with this plain name."""
    known = METHODS[name].method.parameters if name in METHODS else parameters_of(composition(name, METHODS), METHODS)
    if parameter not in known:
        raise unknown(name, [parameter], list(known))
    return parse_value(name, parameter, known[parameter], value)


_BRACKETS = re.compile(r"([^()]+)\(([^()]*)\)")


# The parameters of an intervention, "sofa:sigma=0.3+lad.top_k=4", have "=" and "." too: the last dot that begins a name counts.
_SETTING = re.compile(r"(\S+)\.([A-Za-z_]\w*)\s*=\s*(\S.*)")
