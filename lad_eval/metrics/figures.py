"""The figures, each a function of arrays; all in points (0 to 100) unless stated otherwise.

Source: "Logit-Attention Divergence" (arXiv 2605.11591), section 5.2; RStd also arXiv 2309.03882. S samples, T permutations, N
candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lad_eval.evidence.replies import UNPARSABLE
from lad_eval.evidence.table import Floats, Ints
from lad_eval.metrics.predictions import Bools, Grid


class ChiSquare(NamedTuple):
    """The statistic (N - 1 degrees of freedom) and the probability of one at least as great."""

    statistic: float
    p_value: float


def accuracy(correct: Bools) -> float:
    """Mean over all samples and permutations of Bool[S, T]."""
    return 100 * float(correct.mean())


def accuracy_std(correct: Bools) -> float:
    """Standard deviation over the T permutations of their accuracies, from Bool[S, T]; 0 for T = 1.

    Divides by T - 1, as the released code of LAD does (`src/metric.py`). It says how much the displayed order matters, not how
    sure the accuracy is; for that see the bootstrap interval.
    """
    return 100 * float(correct.mean(axis=0).std(ddof=1)) if correct.shape[1] > 1 else 0.0


def recall(gold: Ints, predicted: Ints, n_candidates: int) -> Floats:
    """Share of the rows with the answer at each position that were answered right, Float[N].

    Args:
        gold: Int[...], positions.
        predicted: Int[...], positions or -1.
        n_candidates: N. A position that never held the answer has NaN.
    """
    hits = np.bincount(gold[gold == predicted], minlength=n_candidates)
    total = np.bincount(gold.ravel(), minlength=n_candidates)
    return 100 * share(hits, total)


def confusion(gold: Ints, predicted: Ints, n_candidates: int) -> Ints:
    """Counts Int[N, N + 1]: row = the right image's position, column = the answered one; the last column counts no answer."""
    column = np.where(predicted == UNPARSABLE, n_candidates, predicted).ravel()
    counts = np.zeros((n_candidates, n_candidates + 1), dtype=np.int64)
    np.add.at(counts, (gold.ravel(), column), 1)
    return counts


def row_shares(counts: Ints) -> Floats:
    """Rows in percent of their sums; NaN in rows without a count."""
    total = counts.sum(axis=1, keepdims=True)
    shares: Floats = np.divide(100.0 * counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return shares


def rstd(gold: Ints, predicted: Ints, n_candidates: int) -> float:
    """Standard deviation (N - 1 in the denominator) of the recall over the N positions; arguments as for `recall`.

    Positions that never held the answer are left out; NaN if fewer than two held it.
    """
    return float(spread(recall(gold, predicted, n_candidates)))


def consistent(chosen: Ints) -> Bools:
    """Whether the same image was chosen under all permutations, Bool[S], from Int[S, T] (image or -1, never consistent)."""
    same: Bools = (chosen == chosen[:, :1]).all(axis=1) & (chosen[:, 0] != UNPARSABLE)
    return same


def consistency(chosen: Ints) -> float:
    """Share of samples for which the same image was chosen under all permutations, from Int[S, T]."""
    return 100 * float(consistent(chosen).mean())


def all_correct(correct: Bools) -> float:
    """Share of samples that are answered right under all permutations, from Bool[S, T]."""
    return 100 * float(correct.all(axis=1).mean())


def unparsable(predicted: Ints) -> int:
    """Number of rows without an answer."""
    return int((predicted == UNPARSABLE).sum())


def chi_square(predicted: Ints, n_candidates: int) -> ChiSquare:
    """Pearson's test that all N positions are answered equally often, from Int[...]; unparsable rows are left out.

    It presupposes that the answer stands at every position equally often, and takes rows as independent, which the T rows of one
    sample are not: read the p-value as an indication. (NaN, NaN) if no row has an answer.
    """
    from scipy.special import chdtrc

    counts = np.bincount(predicted[predicted != UNPARSABLE], minlength=n_candidates)
    if not (total := counts.sum()):
        return ChiSquare(np.nan, np.nan)
    expected = total / n_candidates
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return ChiSquare(statistic, float(chdtrc(n_candidates - 1, statistic)))


def divergence(purified_accuracy: float, vanilla_accuracy: float) -> float:
    """Logit-attention divergence: accuracy of purified attention minus that of the logits, in points."""
    return purified_accuracy - vanilla_accuracy


def share(part: npt.NDArray[np.number], whole: npt.NDArray[np.number]) -> Floats:
    """Elementwise part / whole; NaN where whole is 0."""
    result: Floats = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return result


def spread(values: Floats) -> Floats:
    """Standard deviation (ddof = 1) along the last axis of the values that are not NaN; NaN for fewer than two of them."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    filled = np.where(known, values, 0.0)
    mean = filled.sum(axis=-1) / np.maximum(count, 1)
    squares = np.where(known, (filled - mean[..., None]) ** 2, 0.0).sum(axis=-1)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)


RESAMPLES = 1999
_CELLS = 2**18  # of a block of sampled orders: 2 MB, several times over


class PositionTest(NamedTuple):
    """The statistic (no unit; 0: positions are answered exactly as often as H0 expects) and the p-value, 1/(B+1) to 1."""

    statistic: float
    p_value: float


def position_test(grid: Grid, *, resamples: int = RESAMPLES, seed: int = 42) -> PositionTest:
    """Permutation test of "position does not matter".

    H0: the choices of a sample (images, or none) are exchangeable over its T displayed orders: whatever makes a model choose now
    one image and now another, it is not where the images stand. So the T choices of a sample may be reassigned to its T orders in
    any of the T! ways with equal probability, independently between samples; a reassigned choice is answered at the position
    where its image stands in that order.

    Statistic: sum over positions j of (n_j - E_j)^2 / E_j, with n_j the number of rows answered at j and E_j its exact
    expectation under the dealing. As E_j is made of the choices themselves, neither where the right images stood nor that
    T < N! orders are shown can pass for a preference.

    The test is exact: whatever the model's skill, a p-value of at most a has a chance of at most a under H0, as
    p = (1 + number of B dealings with a statistic at least as great) / (B + 1). It sees a preference for positions that samples
    share, not one that differs from sample to sample and cancels. A sample with the same choice under all orders says nothing
    against H0; where every sample does (or T = 1), p = 1.

    Args:
        grid: predictions of S samples under T orders.
        resamples: B.
        seed: of the dealings.
    """
    at = _positions(grid)
    undecided = ~(consistent(grid.chosen) | (grid.chosen == UNPARSABLE).all(axis=1))
    T, N = len(grid.permutation), grid.n_candidates
    if T == 1 or not undecided.any():
        return PositionTest(0.0, 1.0)
    # [S, t, c] -> position of choice c in order t; N stands for no answer and is not counted.
    dealt = np.where(at[undecided] == UNPARSABLE, N, at[undecided])
    fixed = _counts(grid.predicted[~undecided], N)
    expected = fixed + np.bincount(dealt.ravel(), minlength=N + 1)[:N] / T
    observed = _distance(_counts(grid.predicted, N), expected)
    # Equal tables must count as equal, whatever the last bit of their sums.
    least = observed * (1 - 1e-12) - 1e-12
    reached = sum(int((_distance(fixed + n, expected) >= least).sum()) for n in _dealings(dealt, N, resamples, seed))
    return PositionTest(float(observed), (1 + reached) / (resamples + 1))


def _positions(grid: Grid) -> Ints:
    """Int[S, T, T]: where the image chosen under order u stands in order t, at [s, t, u]; UNPARSABLE where none was chosen."""
    place = np.argsort(grid.perm, axis=2)
    S, T = grid.chosen.shape
    image = np.maximum(grid.chosen, 0)
    position = place[np.arange(S)[:, None, None], np.arange(T)[None, :, None], image[:, None, :]]
    return np.where(grid.chosen[:, None, :] == UNPARSABLE, UNPARSABLE, position)


def _dealings(dealt: Ints, N: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Rows answered at each position in each dealing, in blocks Float[b, N]."""
    S, T, _ = dealt.shape
    generator = np.random.default_rng(seed)
    block = max(1, _CELLS // (S * T))
    cell = T * np.arange(S * T).reshape(S, T)
    for start in range(0, resamples, block):
        shape = (min(block, resamples - start), S, T)
        position = dealt.ravel().take(cell + generator.permuted(np.broadcast_to(np.arange(T), shape), axis=2))
        yield np.stack([(position == j).sum(axis=(1, 2)) for j in range(N)], axis=1).astype(np.float64)


def _counts(predicted: Ints, N: int) -> Floats:
    return np.bincount(predicted[predicted != UNPARSABLE], minlength=N).astype(np.float64)


def _distance(counts: Floats, expected: Floats) -> Floats:
    """Float[...] of Float[..., N]; positions that cannot be answered do not count."""
    possible = expected > 0
    distance: Floats = ((counts[..., possible] - expected[possible]) ** 2 / expected[possible]).sum(axis=-1)
    return distance
