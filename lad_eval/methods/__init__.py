"""How an answer is decided: arithmetic on stored evidence, numpy only.

A method is one class in one file (see `base.Method`) and one line in `METHODS`, or in another package an entry point of the group
`lad_eval.methods`; `conformance` holds the laws it must keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lad_eval.attention.interventions import INTERVENTIONS
from lad_eval.errors import UserError
from lad_eval.methods.base import Method, MethodWarning, NotCalibratedError
from lad_eval.methods.compose import (
    ORDERS,
    PROTOCOLS,
    REPLYING,
    NamedMethod,
    compose,
    composition,
    named,
    part_names,
)
from lad_eval.methods.lad import LAD, NoVisualSignalWarning, UnlabelledLAD
from lad_eval.methods.orders import Majority, OverOrders, PermutationAverage, RandomAverage, Vanilla
from lad_eval.methods.parameters import PLAIN, Condition, LayerRange, ParameterError
from lad_eval.methods.pride import PriDe, PriDeOriginal
from lad_eval.methods.readout import FewLayersWarning, PurifiedAttention, RawAttention
from lad_eval.methods.replying import ChainOfThought, Generate, SelfConsistency
from lad_eval.names import parse_parts, renewed, spell
from lad_eval.registry import Registry
from lad_eval.tasks.prompts import PROMPT_VARIANTS

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
    "OverOrders",
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
    "stored_name",
    "with_parameters",
]


DEFAULT_METHODS = ("vanilla", "pride", "lad", "raw-attention", "purified-attention")
"""What a run compares by default: one forward pass serves all of them; averaging over orders would cost N."""


def _accepted(name: str, value: object) -> NamedMethod:
    if "_" in name:
        raise TypeError(f"the method {name!r} must be named with hyphens, {name.replace('_', '-')!r}, as names are read so")
    if isinstance(value, NamedMethod):
        return value
    if not (isinstance(value, type) and issubclass(value, Method)):
        raise TypeError(f"the method {name!r} must be a subclass of lad_eval.methods.Method")
    return named(value, prompt_variants=("cot",) if issubclass(value, ChainOfThought) else ())


METHODS: Registry[NamedMethod] = Registry(
    "method",
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
    },
    group="lad_eval.methods",
    accept=_accepted,
)


def method_names() -> tuple[str, ...]:
    """Names of the methods that decide from the evidence of the question as it is, in the order of the tables."""
    return tuple(METHODS)


def canonical_name(name: str) -> str:
    """The one spelling of a method's name: `lad+instruction` and `instruction+lad` are `instruction+lad`.

    Raises:
        UserError: it is not the name of a method.
    """
    return composition(name, METHODS).name


def with_parameters(name: str, changes: Mapping[str, Any]) -> str:
    """The name of a method with parameters of its own: `cot(max_new_tokens=64)`, each behind the part that has it."""
    if len(parts := parse_parts(name)) == 1 and not parts[0].settings:
        return spell(parts[0].name, changes)
    return composition(name, METHODS).changed(changes, METHODS).name


def stored_name(name: str) -> str:
    """A method's name as a run stored it, in today's spelling; unknown names are returned unchanged.

    Versions before 0.11 wrote parameters of interventions behind colons, and those of all parts behind the last one:
    `sofa:sigma=0.3+average-random+lad(k=4, top_k=1)`.
    """
    if is_method(name):
        return name
    try:
        if is_method(now := renewed(name)):
            return canonical_name(now)
        *before, last = parse_parts(now)
        parts = composition("+".join(map(str, [*before, last._replace(settings={})])), METHODS)
        over = {} if parts.orders is None else ORDERS[parts.orders].method.parameters
        settings = {key: text for key, text in last.settings.items() if key not in over}
        orders = [] if parts.orders is None else [spell(parts.orders, {k: v for k, v in last.settings.items() if k in over})]
        rest = [part for part in before if part.name != parts.orders]
        return canonical_name("+".join([*map(str, rest), *orders, spell(last.name, settings)]))
    except UserError:
        return name


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
    described = {key: entry.summary for key, entry in {**PROTOCOLS, **ORDERS, **REPLYING}.items()}
    composition(name, METHODS)  # refuses unknown names
    lines = []
    for part in parse_parts(name):
        if part.name in described:
            lines.append(described[part.name])
        elif part.name in METHODS.built_in or (part.name not in INTERVENTIONS and part.name not in PROMPT_VARIANTS):
            lines.append(METHODS[part.name].summary)
        elif part.name in INTERVENTIONS:
            lines.append((INTERVENTIONS[part.name].__doc__ or part.name).strip().splitlines()[0])
        else:
            lines.append(PROMPT_VARIANTS[part.name].summary)
    return " ".join(lines)


def make_method(name: str, **overrides: Any) -> Method:
    """A new method by its name, its preset changed by `overrides`.

    Args:
        name: of a method, or of several parts joined by "+", see `compose`; its `condition` says how the model must be run.
            The parameters of each stand in brackets behind it, "sofa(sigma=0.3)+lad(top_k=1)".
        overrides: parameters.

    Raises:
        UnknownNameError: no method has this name.
        ParameterError: the method has no such parameter, or it cannot have this value, or the parts do not go together.
    """
    parts = composition(name, METHODS)
    return compose(parts.plain, METHODS, {**parts.changes, **overrides})


def parse_setting(text: str) -> tuple[str, dict[str, Any]]:
    """Method name, and typed parameters by name, of a setting such as "lad(top_k=4)" or "sofa+lad(layers=3-5, top_k=1)".

    Raises:
        UnknownNameError: no method has this name.
        ParameterError: no parameter is given, the method has no such parameter, or it cannot have this value.
        UserError: the text is not a name with parameters.
    """
    parts = composition(text, METHODS)
    if not parts.changes:
        raise ParameterError(f"{text!r} sets no parameter: write method(parameter=value), such as lad(top_k=4).")
    return parts.plain.name, parts.changes
