"""Which rows of a table are no worse than its best, as far as the data can tell?"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple, TypeVar

from lad_eval.metrics.exact import ALPHA, paired_test
from lad_eval.metrics.paired import holm
from lad_eval.metrics.predictions import Bools

Name = TypeVar("Name", bound=Hashable)
_EXACT = 1e-9  # accuracies in points are sums of equal counts, rounded by their division only


class Standing(NamedTuple):
    """A row against the best row of its table: `p_value` as tested, `p_holm` corrected for all rows of the table.

    Rows of exactly the greatest accuracy are all the best.
    """

    best: bool
    p_value: float
    p_holm: float

    @property
    def tied(self) -> bool:
        """Not the best, and not significantly different from it."""
        return not self.best and self.p_holm >= ALPHA


def standings(correct: Mapping[Name, Bools]) -> dict[Name, Standing]:
    """Every row against the one with the greatest accuracy, by the exact paired test; Holm over those below it.

    Rows that share the greatest accuracy are all the best; the others are tested against the first of them.

    Args:
        correct: Bool[S, T] by row, all of the same samples and orders.
    """
    accuracies = {name: float(right.mean()) for name, right in correct.items()}
    return standings_by(accuracies, lambda best, name: paired_test(correct[best], correct[name]))


def standings_by(accuracies: Mapping[Name, float], p_value: Callable[[Name, Name], float]) -> dict[Name, Standing]:
    """The same from accuracies and a test of two rows."""
    if not accuracies:
        return {}
    greatest = max(accuracies.values())
    best = [name for name, accuracy in accuracies.items() if abs(accuracy - greatest) <= _EXACT]
    others = [name for name in accuracies if name not in best]
    p_values = [p_value(best[0], name) for name in others]
    tested = {name: Standing(False, p, float(h)) for name, p, h in zip(others, p_values, holm(p_values), strict=True)}
    return {name: tested.get(name, Standing(True, 1.0, 1.0)) for name in accuracies}
