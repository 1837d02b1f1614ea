"""Which rows of a table are no worse than its best, as far as the data can tell?"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from lad_eval.metrics.exact import ALPHA, detectable_between, paired_test
from lad_eval.metrics.paired import holm
from lad_eval.metrics.predictions import Bools

Name = TypeVar("Name", bound=Hashable)


class Standing(NamedTuple):
    """A row against the best row of its table: `p_value` as tested, `p_holm` corrected for all rows of the table.

    Rows with exactly the greatest accuracy are all best, so that equal figures carry equal marks.
    """

    best: bool
    p_value: float
    p_holm: float

    @property
    def tied(self) -> bool:
        """Not the best, and not significantly different from it."""
        return not self.best and self.p_holm >= ALPHA


def standings(correct: Mapping[Name, Bools]) -> dict[Name, Standing]:
    """Every row against the one with the greatest accuracy (of equals the first), by the exact paired test; Holm over the others.

    Args:
        correct: Bool[S, T] by row, all of the same samples and orders.
    """
    accuracies = {name: float(right.mean()) for name, right in correct.items()}
    return standings_by(accuracies, lambda best, name: paired_test(correct[best], correct[name]))


def standings_by(accuracies: Mapping[Name, float], p_value: Callable[[Name, Name], float]) -> dict[Name, Standing]:
    """The same from accuracies and a test of two rows."""
    if not accuracies:
        return {}
    best = max(accuracies, key=lambda name: accuracies[name])
    others = [name for name in accuracies if name != best]
    found = [p_value(best, name) for name in others]
    tested = {name: Standing(False, p, float(h)) for name, p, h in zip(others, found, holm(found), strict=True)}
    return {name: Standing(True, 1.0, 1.0) if equal(accuracies[name], accuracies[best]) else tested[name] for name in accuracies}


def equal(first: float, second: float) -> bool:
    """Whether two accuracies are the same figure; means over repetitions may differ in their last bits."""
    return math.isclose(first, second, rel_tol=1e-12, abs_tol=1e-12)


def can_differ(samples: int, rows: int) -> bool:
    """Whether any difference could be significant: all samples differ in the same direction, corrected for `rows` rows."""
    return (rows - 1) * 2.0 ** (1 - samples) < ALPHA


def detectable_in(correct: Mapping[Name, Bools]) -> float:
    """The greatest `detectable_between` the best row and a row that is tied with it, in points.

    NaN where no row is tied, or where the tied rows never differ from the best.

    Args:
        correct: Bool[S, T] by row, all of the same samples and orders.
    """
    found = standings(correct)
    best = next(name for name, standing in found.items() if standing.best)
    points = [detectable_between(correct[best], correct[name]) for name, standing in found.items() if standing.tied]
    return max((value for value in points if np.isfinite(value)), default=float("nan"))
