"""Is one method better than another on the same requests? Paired differences, exact McNemar tests, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from lad_eval.errors import UnknownNameError
from lad_eval.evidence.table import Floats
from lad_eval.metrics.bootstrap import RESAMPLES, Estimate, FigureArrays, figures, interval, resampled_means, sample_sums
from lad_eval.metrics.predictions import Bools, Grid, Predictions, PredictionsError

ALPHA = 0.05
POWER = 0.8


def gains(first: Bools, second: Bools) -> Floats:
    """Float[S] from Bool[S, T]: orders right under the first method minus those under the second, as a share of T (-1 to 1)."""
    difference: Floats = first.mean(axis=1) - second.mean(axis=1)
    return difference


def paired_test(first: Bools, second: Bools) -> float:
    """Exact two-sided paired permutation test that two methods are equally accurate; the p-value.

    H0: on every sample the two methods could change places, so each difference is as likely with the other sign. The T rows of a
    sample move together. Statistic: the sum of the differences. With c_k samples that differ by k of T orders it is the sum over
    k of k * (2 X_k - c_k), X_k binomial(c_k, 1/2), whose distribution is computed by convolution, without sampling.

    For T = 1 this is the exact McNemar test. For T > 1, McNemar's test on outcomes "right under all orders" is a different test.

    Args:
        first: Bool[S, T], what the first method gets right.
        second: Bool[S, T], the second, same samples and orders.
    """
    whole = first.sum(axis=1, dtype=np.int64) - second.sum(axis=1, dtype=np.int64)
    counts = np.bincount(np.abs(whole))
    # Of n, the number of differences with the first sign, each weighted by its size, out of all of them: sum = 2 n - total.
    distribution = np.ones(1)
    for size, count in enumerate(counts[1:], start=1):
        spaced = np.zeros(size * int(count) + 1)
        spaced[::size] = _fair_binomial(int(count))
        distribution = np.convolve(distribution, spaced)
    total = len(distribution) - 1
    observed = abs(int(whole.sum()))
    sums = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(distribution[sums >= observed].sum()))


def _fair_binomial(n: int) -> Floats:
    """Float[n + 1], the chances of 0..n heads in n throws."""
    from scipy.special import gammaln  # scipy.stats takes a second to import

    k = np.arange(n + 1)
    chances: Floats = np.exp(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) - n * np.log(2))
    return chances


def detectable(spread: float, samples: int, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest true difference in accuracy that a paired two-sided test at `alpha` finds with chance `power`, in points.

    (z_{1 - alpha/2} + z_power) * spread / sqrt(S), the normal approximation for a mean of paired differences.

    Args:
        spread: standard deviation (S - 1 in the denominator) over samples of `gains`, in points; NaN where unknown.
        samples: S.

    Returns:
        Points; NaN where two methods agree on every sample, which says nothing about how a real difference would vary.
    """
    from scipy.special import ndtri

    if not spread > 0:
        return float("nan")
    return float((ndtri(1 - alpha / 2) + ndtri(power)) * spread / np.sqrt(samples))


def detectable_between(first: Bools, second: Bools, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """`detectable` with the spread that these two methods show, Bool[S, T] each; NaN for a single sample."""
    differences = 100 * gains(first, second)
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else float("nan")
    return detectable(spread, len(differences), alpha=alpha, power=power)


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
        detectable: smallest true difference in accuracy, in points, that this many samples detect with power 0.8 at 0.05, given
            how these two differ from sample to sample; NaN where they never differ.
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
    """One outcome per sample, Bool[S], from Bool[S, T]: the rows of a sample depend on each other and must not be counted singly.

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


def _difference(a: FigureArrays, b: FigureArrays, draws_a: FigureArrays, draws_b: FigureArrays, figure: str) -> Estimate:
    value = float(getattr(a, figure) - getattr(b, figure))
    return Estimate(value, *interval(getattr(draws_a, figure) - getattr(draws_b, figure)))


def _paired(a: Grid, b: Grid) -> bool:
    return (
        np.array_equal(a.sample_id, b.sample_id)
        and np.array_equal(a.permutation, b.permutation)
        and np.array_equal(a.gold, b.gold)
    )


Name = TypeVar("Name", bound=Hashable)


class Significance(NamedTuple):
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


def significance(correct: Mapping[Name, Bools]) -> dict[Name, Significance]:
    """Every row against the one with the greatest accuracy (of equals the first), by the exact paired test; Holm over the others.

    Args:
        correct: Bool[S, T] by row, all of the same samples and orders.
    """
    accuracies = {name: float(right.mean()) for name, right in correct.items()}
    return significance_by(accuracies, lambda best, name: paired_test(correct[best], correct[name]))


def significance_by(accuracies: Mapping[Name, float], p_value: Callable[[Name, Name], float]) -> dict[Name, Significance]:
    """The same from accuracies and a test of two rows."""
    if not accuracies:
        return {}
    best = max(accuracies, key=lambda name: accuracies[name])
    others = [name for name in accuracies if name != best]
    p_values = [p_value(best, name) for name in others]
    tested = {name: Significance(False, p, float(h)) for name, p, h in zip(others, p_values, holm(p_values), strict=True)}
    return {
        name: Significance(True, 1.0, 1.0) if equal(accuracies[name], accuracies[best]) else tested[name] for name in accuracies
    }


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
    by_method = significance(correct)
    best = next(name for name, significance in by_method.items() if significance.best)
    points = [detectable_between(correct[best], correct[name]) for name, significance in by_method.items() if significance.tied]
    return max((value for value in points if np.isfinite(value)), default=float("nan"))
