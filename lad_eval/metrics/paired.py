"""Is one method better than another on the same requests? Paired differences, exact McNemar tests, Holm's correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from lad_eval.errors import UnknownNameError
from lad_eval.evidence import Floats
from lad_eval.metrics.bootstrap import RESAMPLES, Estimate, Figures, figures, interval, resampled_means, sample_sums
from lad_eval.metrics.exact import detectable_between
from lad_eval.metrics.predictions import Bools, Grid, Predictions, PredictionsError

Outcome = Literal["all", "majority"]


class McNemar(NamedTuple):
    """Samples that only one of two methods gets right, and the two-sided exact p-value."""

    only_first: int
    only_second: int
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """First method minus second, on the same samples and permutations.

    Attributes:
        first: name of a method.
        second: name of the other.
        accuracy: difference in points, with its 95 % paired cluster bootstrap interval.
        rstd: the same for RStd; below 0 the first is less biased.
        consistency: the same for consistency.
        only_first: samples with a good outcome under the first method only.
        only_second: under the second only.
        p_value: exact McNemar test of the two counts.
        p_holm: the same, corrected for all comparisons made together.
        detectable: smallest true difference in accuracy, in points, that so many samples find with chance 0.8 at 0.05, given how
            these two differ from sample to sample; NaN where they never differ.
    """

    first: str
    second: str
    accuracy: Estimate
    rstd: Estimate
    consistency: Estimate
    only_first: int
    only_second: int
    p_value: float
    p_holm: float
    detectable: float


def outcomes(correct: Bools, outcome: Outcome = "all") -> Bools:
    """One outcome a sample, Bool[S], from Bool[S, T]: the rows of a sample depend on each other and must not be counted singly.

    "all": right under all T permutations, what a user who cannot choose the order can rely on. "majority": right under more than
    half of them; a tie is not enough.
    """
    right, T = correct.sum(axis=1), correct.shape[1]
    return np.asarray(right == T if outcome == "all" else 2 * right > T)


def mcnemar(first: Bools, second: Bools) -> McNemar:
    """Exact McNemar test on outcomes Bool[S] of two methods: two-sided binomial test of the discordant samples at 1/2."""
    from scipy.special import bdtr

    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    tail = float(bdtr(min(only_first, only_second), only_first + only_second, 0.5))
    return McNemar(only_first, only_second, min(1.0, 2 * tail))


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """Holm's step-down correction, Float[m] in the order given: controls the chance of any false finding among the m."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def compare(
    predictions: Mapping[str, Predictions],
    *,
    against: str | None = None,
    outcome: Outcome = "all",
    seed: int = 42,
    resamples: int = RESAMPLES,
) -> list[Comparison]:
    """Compares methods pairwise; Holm's correction runs over all comparisons returned.

    Args:
        predictions: by method, of the same samples and permutations.
        against: compare every other method with this one only (as the second), instead of all pairs.
        outcome: what the McNemar test counts, see `outcomes`.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        UnknownNameError: `against` is none of the methods.
        PredictionsError: two tables differ in samples, permutations or the answers' positions.
    """
    if against is not None and against not in predictions:
        raise UnknownNameError("method", against, predictions)
    grids = {name: table.grid for name, table in predictions.items()}
    reference = next(iter(grids), None)
    for name, grid in grids.items():
        if reference is not None and not _paired(grids[reference], grid):
            raise PredictionsError(f"{reference} and {name} cannot be compared: they answered different samples or orders.")
    pairs = list(combinations(grids, 2)) if against is None else [(name, against) for name in grids if name != against]
    sums = {name: sample_sums(grid) for name, grid in grids.items()}
    points = {name: figures(table.mean(axis=0)) for name, table in sums.items()}
    draws = {name: figures(resampled_means(table, resamples, seed)) for name, table in sums.items()}
    tests = [mcnemar(outcomes(grids[a].correct, outcome), outcomes(grids[b].correct, outcome)) for a, b in pairs]
    corrected = holm([test.p_value for test in tests])
    return [
        Comparison(
            first=a,
            second=b,
            accuracy=_difference(points[a], points[b], draws[a], draws[b], "accuracy"),
            rstd=_difference(points[a], points[b], draws[a], draws[b], "rstd"),
            consistency=_difference(points[a], points[b], draws[a], draws[b], "consistency"),
            only_first=test.only_first,
            only_second=test.only_second,
            p_value=test.p_value,
            p_holm=float(p),
            detectable=detectable_between(grids[a].correct, grids[b].correct),
        )
        for (a, b), test, p in zip(pairs, tests, corrected, strict=True)
    ]


def _difference(a: Figures, b: Figures, draws_a: Figures, draws_b: Figures, figure: str) -> Estimate:
    value = float(getattr(a, figure) - getattr(b, figure))
    return Estimate(value, *interval(getattr(draws_a, figure) - getattr(draws_b, figure)))


def _paired(a: Grid, b: Grid) -> bool:
    return (
        np.array_equal(a.sample_id, b.sample_id)
        and np.array_equal(a.permutation, b.permutation)
        and np.array_equal(a.gold, b.gold)
    )
