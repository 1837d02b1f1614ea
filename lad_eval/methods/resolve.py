"""From names in commands and stored runs to methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lad_eval.attention.interventions import INTERVENTIONS
from lad_eval.errors import UserError
from lad_eval.methods.base import Method
from lad_eval.methods.compose import composition
from lad_eval.methods.evidence_method import EvidenceMethod
from lad_eval.methods.groups import METHOD_SETS, members_of
from lad_eval.methods.registry import METHODS
from lad_eval.names import parse_parts, renewed, spell
from lad_eval.parameters import ParameterError
from lad_eval.tasks.prompts import PROMPT_VARIANTS


def make_method(name: str, **overrides: Any) -> Method:
    """A new method by its name, its preset changed by `overrides`.

    Args:
        name: of a method, or of several parts joined by "+", see `compose`; its `condition` says how the model must be run.
            The parameters of each follow it in brackets, "sofa(sigma=0.3)+lad(top_k=1)".
        overrides: parameters.

    Raises:
        UnknownNameError: no method has this name.
        ParameterError: the method has no such parameter, or it cannot have this value, or the parts cannot be combined.
    """
    parts = composition(name)
    return parts.plain.make({**parts.changes, **overrides})


def make_evidence_method(name: str, **overrides: Any) -> EvidenceMethod:
    """As `make_method`, where the name must be of a method that scores rows of evidence: `calibrate`, then `predict`.

    Raises:
        UserError: it reads replies, needs several displayed orders, probes or other questions, or as `make_method`.
    """
    method = make_method(name, **overrides)
    more = method.probes or method.calibration_probes or method.transductive
    if not isinstance(method, EvidenceMethod) or method.orders != "identity" or more:
        raise UserError(f"{name} does not answer from one pass of the model; use lad, lad-unlabelled, pride or the like.")
    return method


def is_method(name: str) -> bool:
    """Whether `make_method` takes the name."""
    try:
        canonical_name(name)
    except UserError:
        return False
    return True


def canonical_name(name: str) -> str:
    """The one spelling of a method's name: `lad+instruction` and `instruction+lad` are `instruction+lad`.

    Raises:
        UserError: it is not the name of a method.
    """
    return composition(name).name


def with_parameters(name: str, changes: Mapping[str, Any]) -> str:
    """A method's name with parameters, each after the part that has it: `cot(max_new_tokens=64)`."""
    if len(parts := parse_parts(name)) == 1 and not parts[0].settings:
        return spell(parts[0].name, changes)
    return composition(name).changed(changes).name


def stored_name(name: str) -> str:
    """A method's name as a run stored it, in the current spelling; unknown names are returned unchanged.

    Versions before 0.11 wrote parameters of interventions after colons, and those of all parts after the last one:
    `sofa:sigma=0.3+average-random+lad(k=4, top_k=1)`.
    """
    try:
        if is_method(now := renewed(name)):
            return canonical_name(now)
        *before, last = parse_parts(now)
        parts = composition("+".join(map(str, [*before, last._replace(settings={})])))
        over = parts.order_parameters
        settings = {key: text for key, text in last.settings.items() if key not in over}
        orders = [] if parts.orders is None else [spell(parts.orders, {k: v for k, v in last.settings.items() if k in over})]
        rest = [part for part in before if part.name != parts.orders]
        return canonical_name("+".join([*map(str, rest), *orders, spell(last.name, settings)]))
    except UserError:
        return name


def describe_method(name: str) -> str:
    """One line on a method, or on a part of one.

    Raises:
        UnknownNameError: no method has this name.
    """
    composition(name)  # refuses unknown names
    return " ".join(_summary(part.name) for part in parse_parts(name))


def _summary(part: str) -> str:
    if part in METHODS.built_in or (part not in INTERVENTIONS and part not in PROMPT_VARIANTS):
        return METHODS[part].summary
    if part in INTERVENTIONS:
        return (INTERVENTIONS[part].__doc__ or part).strip().splitlines()[0]
    return PROMPT_VARIANTS[part].summary


def parse_setting(text: str) -> tuple[str, dict[str, Any]]:
    """Method name, and typed parameters by name, of a setting such as "lad(top_k=4)" or "sofa+lad(layers=3-5, top_k=1)".

    Raises:
        UnknownNameError: no method has this name.
        ParameterError: no parameter is given, the method has no such parameter, or it cannot have this value.
        UserError: the text is not a name with parameters.
    """
    parts = composition(text)
    if not parts.changes:
        raise ParameterError(f"{text!r} sets no parameter: write method(parameter=value), such as lad(top_k=4).")
    return parts.plain.name, parts.changes


def resolve_methods(names: Iterable[str], settings: Sequence[str] = ()) -> dict[str, Method]:
    """Methods by the name that tables show; one with settings shows them: `lad(top_k=4)`.

    Args:
        names: as `make_method` takes them, or of sets (`METHOD_SETS`).
        settings: texts such as "lad(top_k=4)"; a setting's method is included even if it is not named.

    Raises:
        UserError: a method, a parameter or a value does not exist.
    """
    changes: dict[str, dict[str, Any]] = {}
    for text in settings:
        name, changed = parse_setting(text)
        changes.setdefault(name, {}).update(changed)
    methods = {}
    for name in dict.fromkeys([*map(canonical_name, members_of(names)), *changes]):
        changed = changes.get(name, {})
        methods[with_parameters(name, changed)] = make_method(name, **changed)
    return methods


def set_members(names: Iterable[str]) -> frozenset[str]:
    """The canonical names of the members of named sets, without those that are also named themselves.

    Raises:
        UserError: a method, a parameter or a value does not exist.
    """
    chosen = list(names)
    named = {canonical_name(name) for name in chosen if name not in METHOD_SETS}
    return frozenset(map(canonical_name, members_of(name for name in chosen if name in METHOD_SETS))) - named


def with_stored(methods: Mapping[str, Method], stored: Iterable[str]) -> dict[str, Method]:
    """The methods together with those that a run has figures of, in the order of the tables:

    single names, combinations, methods with settings.
    """
    names = {*methods, *filter(is_method, stored)}
    known = [name for name in METHODS if name in names and METHODS[name].kind == "evidence"]
    combined = [name for name in sorted(names) if name not in known and is_method(name)]
    return {**{name: make_method(name) for name in [*known, *combined]}, **methods}
