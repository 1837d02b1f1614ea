"""Names of combined methods: prompt variants + interventions + orders + decision.

For example `instruction+sofa+average-cyclic+lad(top_k=1)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lad_eval.attention.interventions import INTERVENTIONS, Intervention, join_interventions, make_intervention
from lad_eval.errors import UnknownNameError, UserError
from lad_eval.methods.base import Method
from lad_eval.methods.condition import Condition
from lad_eval.methods.groups import METHOD_SETS
from lad_eval.methods.orders import OverOrders
from lad_eval.methods.registry import METHODS, NamedMethod, names_of
from lad_eval.names import JOIN, Part, parse_parts, spell
from lad_eval.parameters import Parameter, ParameterError, check_names, parse_values
from lad_eval.registry import Registry
from lad_eval.tasks.prompts import PROMPT_VARIANTS, labelling_of


@dataclass(frozen=True)
class Composition:
    """The parts of a name.

    Attributes:
        prompt_variants: of the question.
        intervention: None for the unchanged model.
        orders: name of an entry of METHODS of the kind; None for the displayed order only.
        decision: name of an entry of METHODS of another kind; "" if the name gives none, which means vanilla.
        order_changes: parameters of the orders in the name.
        decision_changes: parameters of the decision in the name.
    """

    prompt_variants: tuple[str, ...]
    intervention: Intervention | None
    orders: str | None
    decision: str
    order_changes: Mapping[str, Any] = field(default_factory=dict)
    decision_changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The canonical name: prompt variants, interventions in written order, orders, decision."""
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
        """The parameters of orders and decision in the name."""
        return {**self.order_changes, **self.decision_changes}

    @property
    def decision_entry(self) -> NamedMethod:
        """What decides."""
        return METHODS[self.decision or "vanilla"]

    @property
    def order_parameters(self) -> Mapping[str, Parameter]:
        """Parameters of the orders, if there are any."""
        return {} if self.orders is None else METHODS[self.orders].method.parameters

    def changed(self, changes: Mapping[str, Any]) -> Composition:
        """The composition with more parameters, each for the part that has it; if both have it, for the decision."""
        of_decision = self.decision_entry.method.parameters
        return replace(
            self,
            order_changes={**self.order_changes, **{k: v for k, v in changes.items() if k not in of_decision}},
            decision_changes={**self.decision_changes, **{k: v for k, v in changes.items() if k in of_decision}},
        )

    def make(self, overrides: Mapping[str, Any]) -> Method:
        """The combined method; a parameter goes to the part that has it.

        Raises:
            ParameterError: no part has such a parameter, or it cannot have this value.
            UserError: the parts cannot be combined.
        """
        entry = self.decision_entry
        overrides = entry.method.current_names(overrides)
        known = {**self.order_parameters, **entry.method.parameters}
        check_names(self.plain.name, overrides, known)
        of_decision = {key: value for key, value in overrides.items() if key in entry.method.parameters}
        method = entry.method(**{**entry.preset, **of_decision})
        method.check()
        condition = method.condition
        if self.orders is not None:
            orders = METHODS[self.orders]
            of_orders = {key: value for key, value in overrides.items() if key not in of_decision}
            combined = orders.method(**{**orders.preset, **of_orders})
            assert isinstance(combined, OverOrders)  # the registry accepts no other class as orders
            combined.check()
            method = combined.over(method)
        method.condition = Condition(self.prompt_variants, self.intervention).joined(condition)
        _check_can_differ(self.plain.name, method)
        return method


def _kind_of(name: str) -> str:
    """The kind of part that a name is; names of installed packages are read only if none of ours matches.

    Raises:
        UnknownNameError: there is no such part.
        UserError: the name stands for several methods.
        RegistryError: it is another package's, which does not load.
    """
    tables: dict[str, Registry[Any]] = {"method": METHODS, "intervention": INTERVENTIONS, "prompt variant": PROMPT_VARIANTS}
    ours = [kind for kind, table in tables.items() if name in table.built_in]
    kind = next(iter(ours or [kind for kind, table in tables.items() if name in table]), None)
    if kind is None and name in METHOD_SETS:
        raise UserError(f"{name} stands for several methods; it takes no parameters and is not part of a name: --methods {name}.")
    if kind is None:
        raise UnknownNameError("method", name, [*METHODS, *METHOD_SETS, *part_names()])
    if kind == "method":
        return "orders" if METHODS[name].kind == "orders" else "decision"
    return kind


def composition(name: str) -> Composition:
    """The parts of a name, written in any order; several interventions keep their order.

    Args:
        name: parts joined by "+", each with its parameters in brackets.

    Raises:
        UnknownNameError: a part is not a known name.
        ParameterError: two parts are of one kind, they cannot be combined, or a parameter cannot have its value.
        RegistryError: a part is another package's, which does not load.
        UserError: the text is not a name with parameters.
    """
    parts_of: dict[str, list[Part]] = {kind: [] for kind in ("prompt variant", "intervention", "orders", "decision")}
    for part in parse_parts(name):
        parts_of[_kind_of(part.name)].append(part)
    for kind, words in (("orders", "set of orders"), ("decision", "decision")):
        if len(parts := parts_of[kind]) > 1:
            raise ParameterError(f"{name!r} joins {' and '.join(p.name for p in parts)}, and a method has one {words} at most.")
    for kind in ("prompt variant", "intervention"):
        names = [part.name for part in parts_of[kind]]
        if twice := [each for each in dict.fromkeys(names) if names.count(each) > 1]:
            raise ParameterError(f"{name!r} has {twice[0]!r} twice.")
    for part in parts_of["prompt variant"]:
        check_names(part.name, part.settings, ())
    # A variant that does not load fails here, before a model is loaded.
    labelled = [part.name for part in parts_of["prompt variant"] if PROMPT_VARIANTS[part.name].labelling is not None]
    if len(labelled) > 1:
        raise ParameterError(f"{name!r} joins {' and '.join(labelled)}, and images have one label at most.")
    orders, decision = (next(iter(parts_of[kind]), None) for kind in ("orders", "decision"))
    if orders is not None and decision is not None:
        _check_joins(name, orders.name, decision.name)
    interventions = [make_intervention(part) for part in parts_of["intervention"]]
    prompt_variants = tuple(sorted(part.name for part in parts_of["prompt variant"]))
    chosen = "" if decision is None else decision.name
    if chosen == "vanilla" and (prompt_variants or interventions or orders):
        chosen = ""  # vanilla is the default and left out: one spelling of each method
    made = Composition(prompt_variants, join_interventions(interventions), None if orders is None else orders.name, chosen)
    if decision is not None:
        decision = decision._replace(settings=made.decision_entry.method.current_names(decision.settings))
    of_orders, of_decision = made.order_parameters, made.decision_entry.method.parameters
    return replace(
        made,
        order_changes={} if orders is None else _typed(orders, of_orders, decision, of_decision),
        decision_changes={} if decision is None else _typed(decision, of_decision, orders, of_orders),
    )


def _check_joins(name: str, orders: str, decision: str) -> None:
    over = METHODS[orders].method
    if METHODS[decision].kind == "replies" and issubclass(over, OverOrders) and over.needs_probabilities:
        raise ParameterError(f"{name!r}: {decision} gives no probabilities to average; use majority.")


def _check_can_differ(name: str, method: Method) -> None:
    """Refuses to read the answer's place where it is the same for every order; a label that images have may be read."""
    if labelling_of(method.condition.prompt_variants) is not None:
        return
    intervention = method.condition.intervention
    invariant = [] if intervention is None else [part.name for part in intervention.members if part.order_invariant]
    if invariant and not method.needs <= {"attention", "token_map"}:
        raise ParameterError(
            f"{name!r}: under {invariant[0]} the same place is answered in every order; join what reads attention only, such as "
            f"{invariant[0]}+attention-sorting, or label the images: labelled-places+{invariant[0]}."
        )


def _typed(part: Part, known: Mapping[str, Parameter], other: Part | None, others: Mapping[str, Parameter]) -> dict[str, Any]:
    """Values of a part's parameters; `other` is the part that may have been meant."""
    unknown_names = [key for key in part.settings if key not in known]
    if other is not None and unknown_names and all(key in others for key in unknown_names):
        there = spell(other.name, {**other.settings, **{key: part.settings[key] for key in unknown_names}})
        raise ParameterError(f"{part.name} has no parameter {unknown_names[0]!r}, which {other.name} has: write {there}.")
    return parse_values(part.name, known, part.settings)


def part_names() -> tuple[str, ...]:
    """Names of all parts except the methods that decide from evidence, in the order in which they are joined."""
    return (
        *names_of("protocol"),
        *(name for name in PROMPT_VARIANTS.usable() if name not in METHODS.built_in),
        *INTERVENTIONS.usable(),
        *names_of("orders"),
        *names_of("replies"),
    )
