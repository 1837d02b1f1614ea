"""Names of methods that are put together: prompt variants + interventions + orders + decision.

For example `instruction+sofa+average-cyclic+lad(top_k=1)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from lad_eval.attention.interventions import INTERVENTIONS, Intervention, join_interventions, make_intervention
from lad_eval.errors import UnknownNameError
from lad_eval.methods.base import Method
from lad_eval.methods.orders import Majority, OverOrders, PermutationAverage, RandomAverage
from lad_eval.methods.parameters import Condition, Parameter, ParameterError, parse_value, unknown
from lad_eval.methods.pride import PriDeOriginal
from lad_eval.methods.replying import ChainOfThought, Generate, SelfConsistency
from lad_eval.names import JOIN, Part, parse_parts, spell
from lad_eval.registry import Registry
from lad_eval.tasks.prompts import PROMPT_VARIANTS


class NamedMethod(NamedTuple):
    """A class and the parameters that a name stands for; the rest are the class's defaults.

    Attributes:
        prompt_variants: of the question that the method is made for.
    """

    method: type[Method]
    preset: Mapping[str, Any]
    summary: str
    prompt_variants: tuple[str, ...] = ()


def named(method: type[Method], summary: str = "", *, prompt_variants: tuple[str, ...] = (), **preset: Any) -> NamedMethod:
    line, *_ = (summary or method.__doc__ or "").strip().splitlines() or [method.__name__]
    return NamedMethod(method, MappingProxyType(preset), line, prompt_variants)


ORDERS: Mapping[str, NamedMethod] = MappingProxyType(
    {
        "average-cyclic": named(PermutationAverage, "Averaged over the N cyclic shifts: permutation-average, over any decision."),
        "average-random": named(RandomAverage),
        "majority": named(Majority),
    }
)

REPLYING: Mapping[str, NamedMethod] = MappingProxyType(
    {
        "generate": named(Generate),
        "cot": named(ChainOfThought, prompt_variants=("cot",)),
        "self-consistency": named(SelfConsistency, prompt_variants=("cot",)),
    }
)

PROTOCOLS: Mapping[str, NamedMethod] = MappingProxyType({"pride-original": named(PriDeOriginal)})


@dataclass(frozen=True)
class Composition:
    """A name in its parts.

    Attributes:
        prompt_variants: of the question.
        intervention: None for the model as it is.
        orders: name of an entry of ORDERS; None for the displayed order alone.
        decision: name of an entry of METHODS or REPLYING; "" where the name gives none, which is vanilla.
        order_changes: parameters that the name gives the orders.
        decision_changes: parameters that the name gives the decision.
    """

    prompt_variants: tuple[str, ...]
    intervention: Intervention | None
    orders: str | None
    decision: str
    order_changes: Mapping[str, Any] = field(default_factory=dict)
    decision_changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name in its one spelling: prompt variants, interventions in written order, orders, decision."""
        intervention = [] if self.intervention is None else [self.intervention.label]
        orders = [] if self.orders is None else [spell(self.orders, self.order_changes)]
        decision = self.decision or ("vanilla" if self.decision_changes else "")
        return JOIN.join(
            [*self.prompt_variants, *intervention, *orders, *([spell(decision, self.decision_changes)] if decision else [])]
        )

    @property
    def plain(self) -> Composition:
        """The same without the parameters of orders and decision."""
        return replace(self, order_changes={}, decision_changes={})

    @property
    def changes(self) -> dict[str, Any]:
        """The parameters of orders and decision that the name gives."""
        return {**self.order_changes, **self.decision_changes}

    def changed(self, changes: Mapping[str, Any], decisions: Registry[NamedMethod]) -> Composition:
        """With more parameters, each of the part that has it; of two that have it, of the decision."""
        of_decision = entry_of(self, decisions).method.parameters
        return replace(
            self,
            order_changes={**self.order_changes, **{k: v for k, v in changes.items() if k not in of_decision}},
            decision_changes={**self.decision_changes, **{k: v for k, v in changes.items() if k in of_decision}},
        )


_KINDS = ("prompt variant", "intervention", "orders", "decision")


def _kind_of(name: str, decisions: Registry[NamedMethod]) -> str:
    """Which kind of part a name is; the names of installed packages are read only where none of ours fits.

    Raises:
        UnknownNameError: none.
    """
    if name in ORDERS:
        return "orders"
    if name in REPLYING or name in PROTOCOLS:
        return "decision"
    tables: dict[str, Registry[Any]] = {"decision": decisions, "intervention": INTERVENTIONS, "prompt variant": PROMPT_VARIANTS}
    for kind, table in tables.items():
        if name in table.built_in:
            return kind
    for kind, table in tables.items():
        if name in table:
            return kind
    raise UnknownNameError("method", name, [*decisions, *part_names()])


def composition(name: str, decisions: Registry[NamedMethod]) -> Composition:
    """The parts of a name, in whatever order it gives them; several interventions keep theirs.

    Args:
        name: parts joined by "+", each with its parameters in brackets.
        decisions: methods that decide from evidence.

    Raises:
        UnknownNameError: a part is not a known name.
        ParameterError: two parts are of one kind, they do not go together, or a parameter cannot have its value.
        RegistryError: a part is another package's, which does not load.
        UserError: the text is not a name with parameters.
    """
    parts_of: dict[str, list[Part]] = {kind: [] for kind in _KINDS}
    for part in parse_parts(name):
        parts_of[_kind_of(part.name, decisions)].append(part)
    for kind, words in (("orders", "set of orders"), ("decision", "decision")):
        if len(parts := parts_of[kind]) > 1:
            raise ParameterError(f"{name!r} joins {' and '.join(p.name for p in parts)}, and a method has one {words} at most.")
    for kind in ("prompt variant", "intervention"):
        names = [part.name for part in parts_of[kind]]
        if twice := [each for each in dict.fromkeys(names) if names.count(each) > 1]:
            raise ParameterError(f"{name!r} has {twice[0]!r} twice.")
    for part in parts_of["prompt variant"]:
        PROMPT_VARIANTS[part.name]  # a variant that does not load fails here, before a model is loaded
        if part.settings:
            raise unknown(part.name, list(part.settings), [])
    orders, decision = (next(iter(parts_of[kind]), None) for kind in ("orders", "decision"))
    if decision is not None and decision.name in REPLYING and orders is not None and orders.name != "majority":
        raise ParameterError(f"{name!r}: {decision.name} gives no probabilities to average; use majority.")
    interventions = [make_intervention(part) for part in parts_of["intervention"]]
    prompt_variants = tuple(sorted(part.name for part in parts_of["prompt variant"]))
    chosen = "" if decision is None else decision.name
    if chosen == "vanilla" and (prompt_variants or interventions or orders):
        chosen = ""  # what decides where nothing else does: one spelling of each method
    made = Composition(prompt_variants, join_interventions(interventions), None if orders is None else orders.name, chosen)
    known = {} if orders is None else ORDERS[orders.name].method.parameters
    of_decision = entry_of(made, decisions).method.parameters
    return replace(
        made,
        order_changes={} if orders is None else _typed(orders, known, decision, of_decision),
        decision_changes={} if decision is None else _typed(decision, of_decision, orders, known),
    )


def _typed(part: Part, known: Mapping[str, Parameter], other: Part | None, others: Mapping[str, Parameter]) -> dict[str, Any]:
    """Values of a part's parameters; `other` is the part that may have been meant."""
    unknown_names = [key for key in part.settings if key not in known]
    if other is not None and unknown_names and all(key in others for key in unknown_names):
        there = spell(other.name, {**other.settings, **{key: part.settings[key] for key in unknown_names}})
        raise ParameterError(f"{part.name} has no parameter {unknown_names[0]!r}, which {other.name} has: write {there}.")
    if unknown_names:
        raise unknown(part.name, unknown_names, list(known))
    return {key: parse_value(part.name, key, known[key], text) for key, text in part.settings.items()}


def part_names() -> tuple[str, ...]:
    """Names of parts beside the methods that decide from evidence, in the order in which they are joined."""
    return (
        *PROTOCOLS,
        *(name for name in PROMPT_VARIANTS.usable() if name not in REPLYING),
        *INTERVENTIONS.usable(),
        *ORDERS,
        *REPLYING,
    )


def compose(parts: Composition, decisions: Registry[NamedMethod], overrides: Mapping[str, Any]) -> Method:
    """The method that the parts make; a parameter goes to the part that has it.

    Raises:
        ParameterError: no part has such a parameter, or it cannot have this value.
        UserError: the parts do not go together.
    """
    entry = entry_of(parts, decisions)
    orders = None if parts.orders is None else ORDERS[parts.orders]
    known = parameters_of(parts, decisions)
    if unknown_names := [key for key in overrides if key not in known]:
        raise unknown(parts.plain.name, unknown_names, list(known))
    of_decision = {key: value for key, value in overrides.items() if key in entry.method.parameters}
    method = entry.method(**{**entry.preset, **of_decision})
    method.check()
    if orders is not None:
        combined = orders.method(**{key: value for key, value in overrides.items() if key not in of_decision})
        assert isinstance(combined, OverOrders)
        combined.check()
        method = combined.over(method)
    method.condition = Condition(tuple(dict.fromkeys((*parts.prompt_variants, *entry.prompt_variants))), parts.intervention)
    return method


def entry_of(parts: Composition, decisions: Registry[NamedMethod]) -> NamedMethod:
    """The decision's entry."""
    name = parts.decision or "vanilla"
    # One by one: another package's method that does not load is no matter of this one.
    return PROTOCOLS[name] if name in PROTOCOLS else REPLYING[name] if name in REPLYING else decisions[name]


def parameters_of(parts: Composition, decisions: Registry[NamedMethod]) -> dict[str, Parameter]:
    """Parameters of the orders and of the decision."""
    of_orders = {} if parts.orders is None else dict(ORDERS[parts.orders].method.parameters)
    return {**of_orders, **entry_of(parts, decisions).method.parameters}
