"""Names of methods that are put together: wording + intervention + views + decision, such as `instruction+sofa+majority+lad`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from lad_eval.attention.interventions import INTERVENTIONS, Intervention, parse_intervention
from lad_eval.errors import UnknownNameError
from lad_eval.methods.base import Method
from lad_eval.methods.parameters import Condition, Parameter, ParameterError, unknown
from lad_eval.methods.pride import PriDeOriginal
from lad_eval.methods.replying import ChainOfThought, Generate, SelfConsistency
from lad_eval.methods.views import Majority, OverViews, PermutationAverage, RandomAverage

JOIN = "+"


class NamedMethod(NamedTuple):
    """A class and the parameters that a name stands for; the rest are the class's defaults.

    Attributes:
        wordings: of the question that the method is made for.
    """

    method: type[Method]
    preset: Mapping[str, Any]
    summary: str
    wordings: tuple[str, ...] = ()


def named(method: type[Method], summary: str = "", *, wordings: tuple[str, ...] = (), **preset: Any) -> NamedMethod:
    return NamedMethod(method, MappingProxyType(preset), summary or (method.__doc__ or "").strip().splitlines()[0], wordings)


VIEWS: Mapping[str, NamedMethod] = MappingProxyType(
    {
        "average-cyclic": named(PermutationAverage, "Averaged over the N cyclic shifts: permutation-average, over any decision."),
        "average-random": named(RandomAverage),
        "majority": named(Majority),
    }
)

REPLYING: Mapping[str, NamedMethod] = MappingProxyType(
    {
        "generate": named(Generate),
        "cot": named(ChainOfThought, wordings=("cot",)),
        "self-consistency": named(SelfConsistency, wordings=("cot",)),
    }
)

PROTOCOLS: Mapping[str, NamedMethod] = MappingProxyType({"pride-original": named(PriDeOriginal)})

WORDED: Mapping[str, str] = MappingProxyType(
    {"instruction": "The question says that the images are shuffled and asks to judge them fairly."}
)


@dataclass(frozen=True)
class Composition:
    """A name in its parts.

    Attributes:
        wordings: of the question.
        intervention: None for the model as it is.
        views: name of an entry of VIEWS; None for the displayed order alone.
        decision: name of an entry of METHODS or REPLYING; "" where the name gives none, which is vanilla.
    """

    wordings: tuple[str, ...]
    intervention: Intervention | None
    views: str | None
    decision: str

    @property
    def name(self) -> str:
        """The name in its one spelling: wordings, intervention, views, decision."""
        intervention = [] if self.intervention is None else [self.intervention.label]
        parts = [*self.wordings, *intervention, *filter(None, [self.views, self.decision])]
        return JOIN.join(parts)


def spelled(name: str) -> str:
    """A part's name with hyphens for underscores."""
    head, colon, rest = name.strip().partition(":")
    return head.strip().replace("_", "-") + colon + rest


def composition(name: str, decisions: Mapping[str, NamedMethod]) -> Composition:
    """The parts of a name, in whatever order it gives them.

    Args:
        name: parts joined by "+".
        decisions: methods that decide from evidence.

    Raises:
        UnknownNameError: a part is no name.
        ParameterError: a part is empty or has brackets, two are of one kind, or they do not go together.
        UserError: a parameter of an intervention cannot have its value.
    """
    wordings: list[str] = []
    found: dict[str, list[str]] = {"intervention": [], "view": [], "decision": []}
    for part in map(spelled, name.split(JOIN)):
        if not part:
            raise ParameterError(f"{name!r} has an empty part; join names of `lad-eval ls methods` by {JOIN}.")
        if {*part} & {*"()"}:
            raise ParameterError(f"{name!r}: parameters stand in brackets at the end, such as sofa+lad(top_k=1).")
        if part in WORDED:
            wordings.append(part)
        elif part.partition(":")[0] in INTERVENTIONS:
            found["intervention"].append(part)
        elif part in VIEWS:
            found["view"].append(part)
        elif part in decisions or part in REPLYING or part in PROTOCOLS:
            found["decision"].append(part)
        else:
            raise UnknownNameError("method", part, [*decisions, *part_names()])
    for kind, parts in found.items():
        if len(parts) > 1:
            raise ParameterError(f"{name!r} joins {' and '.join(parts)}, and a method has one {kind} at most.")
    if len(set(wordings)) < len(wordings):
        raise ParameterError(f"{name!r} has {wordings[0]!r} twice.")
    intervention, view, decision = (parts[0] if parts else None for parts in found.values())
    if decision in REPLYING and view not in (None, "majority"):
        raise ParameterError(f"{name!r}: {decision} gives no probabilities to average; use majority.")
    made = None if intervention is None else parse_intervention(intervention)
    if decision == "vanilla" and (wordings or made or view):
        decision = None  # what decides where nothing else does: one spelling of each method
    return Composition(tuple(sorted(wordings)), made, view, decision or "")


def part_names() -> tuple[str, ...]:
    """Names of parts beside the methods that decide from evidence, in the order in which they are joined."""
    return (*PROTOCOLS, *WORDED, *INTERVENTIONS, *VIEWS, *REPLYING)


def compose(parts: Composition, decisions: Mapping[str, NamedMethod], overrides: Mapping[str, Any]) -> Method:
    """The method that the parts make; a parameter goes to the part that has it.

    Raises:
        ParameterError: no part has such a parameter, or it cannot have this value.
        UserError: the parts do not go together.
    """
    entry = entry_of(parts, decisions)
    view = None if parts.views is None else VIEWS[parts.views]
    known = parameters_of(parts, decisions)
    if strangers := [key for key in overrides if key not in known]:
        raise unknown(parts.name, strangers, list(known))
    own = {key: value for key, value in overrides.items() if key in entry.method.parameters}
    method = entry.method(**{**entry.preset, **own})
    method.check()
    if view is not None:
        over = view.method(**{key: value for key, value in overrides.items() if key not in own})
        assert isinstance(over, OverViews)
        over.check()
        method = over.over(method)
    method.condition = Condition(tuple(dict.fromkeys((*parts.wordings, *entry.wordings))), parts.intervention)
    return method


def entry_of(parts: Composition, decisions: Mapping[str, NamedMethod]) -> NamedMethod:
    """The decision's entry."""
    return {**decisions, **PROTOCOLS, **REPLYING}[parts.decision or "vanilla"]


def parameters_of(parts: Composition, decisions: Mapping[str, NamedMethod]) -> dict[str, Parameter]:
    """Parameters of the views and of the decision."""
    own = {} if parts.views is None else dict(VIEWS[parts.views].method.parameters)
    return {**own, **entry_of(parts, decisions).method.parameters}
