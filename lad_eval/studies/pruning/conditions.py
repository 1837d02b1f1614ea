"""The conditions of the study: every share of visual tokens, under every ranking of them, read by every decision."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from lad_eval.attention.interventions import INTERVENTIONS, make_intervention
from lad_eval.attention.pruning.debiased import DebiasedPruner
from lad_eval.attention.pruning.pruner import Pruner
from lad_eval.attention.pruning.random_tokens import RandomTokens
from lad_eval.attention.pruning.trend import TrendKind
from lad_eval.errors import UserError
from lad_eval.methods import resolve_methods
from lad_eval.names import parse_parts

KEEPS = (1.0, 0.5, 0.25, 0.125, 0.0)
RANDOM = "random"
RANKINGS = ("none", "mean", "exp", RANDOM)
"""By attention with no trend, its mean or its exponential removed; and at random."""
DECISIONS = ("vanilla", "pride", "lad")
_SHARE = re.compile(r"0|[01]?\.\d+|[01]\.")
_NOT_IN_BRACKETS = re.compile(r",(?![^()]*\))")


@dataclass(frozen=True)
class PruningCondition:
    """How many visual tokens are kept, and by what ranking; both None for the unpruned model."""

    keep: float | None = None
    ranking: str | None = None


UNPRUNED = PruningCondition()


def parse_keeps(text: str) -> tuple[float, ...]:
    """Shares of the visual tokens, greatest first, each once.

    Args:
        text: decimal numbers from 0 to 1, separated by commas; 1 is refused, since `keep=1` is one token elsewhere.

    Raises:
        UserError: the text is anything else, or leaves no tokens to choose between.
    """
    shares: set[float] = set()
    for part in (part.strip() for part in text.split(",")):
        if not _SHARE.fullmatch(part) or float(part) > 1:
            hint = " (1.0 for all)" if part == "1" else ""
            raise UserError(f"--keep takes shares of the visual tokens from 0 to 1.0, such as 1.0,0.25,0, not {part!r}{hint}.")
        shares.add(float(part))
    if not any(map(is_choice, shares)):
        raise UserError("--keep needs a share between 0 and 1.0, such as 0.25: of all tokens or none there is nothing to choose.")
    return tuple(sorted(shares, reverse=True))


def parse_pruners(text: str) -> tuple[DebiasedPruner, ...]:
    """The pruners in the given order, each once.

    Args:
        text: names of registered pruners that rank by attention, separated by commas, with parameters in brackets:
            "fastv,sparsevlm(merge=false)". The study itself sets `keep` and `trend`.

    Raises:
        UnknownNameError: no intervention has the name.
        UserError: it does not rank tokens by attention, or a parameter is wrong or the study's own.
    """
    pruners: dict[str, DebiasedPruner] = {}
    for name in (name.strip() for name in _NOT_IN_BRACKETS.split(text) if name.strip()):
        part, *more = parse_parts(name)
        kind = INTERVENTIONS[part.name]
        if more or not issubclass(kind, DebiasedPruner):
            ranking = [other for other in INTERVENTIONS if issubclass(INTERVENTIONS[other], DebiasedPruner)]
            raise UserError(f"--pruner takes pruners that rank tokens by attention ({', '.join(ranking)}), not {name!r}.")
        if reserved := {"keep", "trend"} & part.settings.keys():
            raise UserError(f"--pruner {name}: the study itself sets {' and '.join(sorted(reserved))}; leave it out.")
        pruner = cast("DebiasedPruner", make_intervention(part))
        pruners[pruner.label] = pruner
    if not pruners:
        raise UserError("--pruner names none; fastv is the default.")
    return tuple(pruners.values())


def is_choice(keep: float) -> bool:
    """Whether a ranking matters: of all tokens or none there is nothing to choose."""
    return 0 < keep < 1


def rankings_of(keep: float) -> tuple[str, ...]:
    """The rankings that are run at a share."""
    return RANKINGS if is_choice(keep) else RANKINGS[:1]


def conditions_of(keeps: Sequence[float]) -> list[PruningCondition]:
    """The unpruned model first, then by share."""
    return [UNPRUNED, *(PruningCondition(keep, ranking) for keep in keeps for ranking in rankings_of(keep))]


def intervention_of(pruner: DebiasedPruner, condition: PruningCondition) -> Pruner:
    """The pruner under a condition, not yet calibrated; a random choice drops tokens before the same layer."""
    keep = condition.keep
    assert keep is not None  # without pruning there is no intervention
    if condition.ranking == RANDOM:
        return RandomTokens(keep=keep, layer=pruner.layer)
    return replace(pruner, keep=keep, trend=cast("TrendKind", condition.ranking))


def method_name(pruner: DebiasedPruner, condition: PruningCondition, decision: str) -> str:
    """A decision under a condition, as runs name it."""
    if condition == UNPRUNED:
        return decision
    label = intervention_of(pruner, condition).label
    (name,) = resolve_methods([label if decision == "vanilla" else f"{label}+{decision}"])
    return name


def method_names(pruners: Sequence[DebiasedPruner], keeps: Sequence[float]) -> list[str]:
    """All methods of the study, those of the unpruned model first."""
    names = (
        method_name(pruner, condition, decision)
        for pruner in pruners
        for condition in conditions_of(keeps)
        for decision in DECISIONS
    )
    return list(dict.fromkeys(names))
