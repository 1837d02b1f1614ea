"""What the study asks: every share of visual tokens, under every ranking of them, read by every decision."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lad_eval.attention.interventions import parse_intervention
from lad_eval.errors import UserError
from lad_eval.run.collect import resolve_methods

KEEPS = (1.0, 0.5, 0.25, 0.125, 0.0)
RANDOM = "random"
RANKINGS = ("none", "mean", "exp", RANDOM)
"""By attention, with no trend, its mean or its exponential taken out; and by chance."""
DECISIONS = ("vanilla", "pride", "lad")
_SHARE = re.compile(r"0|[01]?\.\d+|[01]\.")


def parse_keeps(text: str) -> tuple[float, ...]:
    """Shares of the visual tokens, greatest first, each once.

    Args:
        text: decimal numbers from 0 to 1, separated by commas; 1 is refused, since `keep=1` is one token elsewhere.

    Raises:
        UserError: it is something else, or all of it is such that nothing is chosen.
    """
    shares: set[float] = set()
    for part in (part.strip() for part in text.split(",")):
        if not _SHARE.fullmatch(part) or float(part) > 1:
            hint = " (1.0 for all)" if part == "1" else ""
            raise UserError(f"--keep takes shares of the visual tokens from 0 to 1.0, such as 1.0,0.25,0, not {part!r}{hint}.")
        shares.add(float(part))
    if not any(map(chooses, shares)):
        raise UserError("--keep needs a share between 0 and 1.0, such as 0.25: of all tokens or none there is nothing to choose.")
    return tuple(sorted(shares, reverse=True))


def chooses(keep: float) -> bool:
    """Whether a ranking matters: of all tokens or none there is nothing to choose."""
    return 0 < keep < 1


def rankings_of(keep: float) -> tuple[str, ...]:
    """The rankings that are asked at a share."""
    return RANKINGS if chooses(keep) else RANKINGS[:1]


def intervention_name(keep: float, ranking: str) -> str:
    """The pruner as `--methods` takes it."""
    if ranking == RANDOM:
        return f"random-tokens(keep={keep!r})"
    trend = "" if ranking == "none" else f", trend={ranking}"
    return parse_intervention(f"fastv(keep={keep!r}{trend})").label


def method_name(keep: float | None, ranking: str, decision: str) -> str:
    """A decision under a pruner, as runs call it; `keep` None: nothing is pruned."""
    if keep is None:
        return decision
    pruner = intervention_name(keep, ranking)
    (name,) = resolve_methods([pruner if decision == "vanilla" else f"{pruner}+{decision}"])
    return name


def method_names(keeps: Sequence[float]) -> list[str]:
    """All that is asked, the unpruned model first."""
    pruned = [(keep, ranking) for keep in keeps for ranking in rankings_of(keep)]
    return [method_name(keep, ranking, decision) for keep, ranking in [(None, ""), *pruned] for decision in DECISIONS]
