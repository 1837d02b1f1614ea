"""How large must a change for the worse be before a paired test on so many samples detects it?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from lad_eval.evidence.table import Floats, Ints
from lad_eval.metrics.figures import spread
from lad_eval.metrics.paired import ALPHA, POWER
from lad_eval.metrics.predictions import Grid

_HALVINGS = 20  # to a millionth of the samples
_UNLIKELY = 1e-9


def noticeable_share(samples: int, both_ways: float = 0.0, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest share of samples that must be lost for the exact paired test to find it with chance `power`.

    A sample is lost as a whole, under all its orders: of all drops of this size this one varies most from sample to sample, so
    that any other drop in one direction is detected at least as well. In addition to the lost samples, a share `both_ways` of the
    samples changes without a change on the whole, half of them for the better. So the paired differences have the variance
    both_ways + d - d^2 at a loss of d, and the chance is exact: the numbers of changed and of lost samples are binomial, the test
    is the sign test.

    Args:
        samples: S.
        both_ways: share of samples, 0 to 1; 0 if the two tables are equal but for the loss.
        alpha: level of the two-sided test.
        power: the chance.

    Returns:
        A share; NaN where even the loss of all samples would not be found.
    """
    n = np.arange(samples + 1)
    needed = _needed(n, alpha)
    low, high = 0.0, 1.0 - both_ways
    if not high > 0 or _power(n, needed, high, both_ways) < power:
        return float("nan")
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _power(n, needed, middle, both_ways) < power else (low, middle)
    return high


def noticeable_mean(differences: Floats, whole: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest true mean of paired differences that such a test finds with chance `power`, given how the differences vary.

    Changed samples are taken to change by one typical size, such that the sum of the absolute differences and the sum of their
    squares are those observed. One sample that is lost as a whole is added to those observed, since few changes say little of how
    a change looks, and none nothing. What cancels in the sum are changes both ways. With a = sum |d|, b = sum d^2, c = |sum d|:
    size = (b + whole^2) / (a + whole), and the mean is size * noticeable_share(S, (a - c) / (size * S)).

    Args:
        differences: Float[S], one per sample.
        whole: the difference of a sample that is lost as a whole, in the same unit.
        alpha: level of the two-sided test.
        power: the chance.

    Returns:
        In the unit of the differences; NaN where no loss would be found.
    """
    moved = np.abs(differences)
    size = float((whole**2 + (moved**2).sum()) / (whole + moved.sum()))
    cancelled = float(moved.sum()) - abs(float(differences.sum()))
    return size * noticeable_share(len(moved), max(0.0, cancelled) / (size * len(moved)), alpha=alpha, power=power)


def noticeable_rise(before: Grid, now: Grid, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest rise of RStd, in points, that `rstd_swap_test` finds with chance `power`; an approximation.

    Under its null hypothesis both recalls over the N positions lie about their mean, so that to first order a difference in RStd
    is a mean over samples: what a sample changes of the recalls, along the direction in which that mean departs from equal
    recalls, by sqrt(N - 1). `noticeable_mean` applies to these. Lost as a whole is a sample that is answered right if and only if
    the right image stands at one of the favoured positions: the k with the highest recall, k such that RStd rises most.

    Args:
        before: answers of the baseline.
        now: others to the same samples and orders.
        alpha: level of the two-sided test.
        power: the chance.

    Returns:
        Points; NaN where no such rise would be found, or RStd cannot rise so far.
    """
    shown = before.rows > 0
    rows, hits, others = before.rows[shown], before.hits[:, shown], now.hits[:, shown]
    recalls, after = (100 * table.sum(axis=0) / rows for table in (hits, others))
    share = noticeable_share(len(hits), alpha=alpha, power=power)
    ranked, favoured = -np.sort(-recalls), 100.0 * np.tri(len(recalls))
    fewest, most = (float(spread((1 - part) * ranked + part * favoured).max() - spread(ranked)) for part in (share, 1.0))
    if not fewest > 0:
        return float("nan")
    between = recalls + after - (recalls + after).mean()
    slope = between / max(float(np.linalg.norm(between)), 1e-9) / np.sqrt(len(recalls) - 1)
    differences = 100 * len(hits) * (((others - hits) / rows) @ slope)
    rise = noticeable_mean(differences, fewest / share, alpha=alpha, power=power)
    return rise if rise <= most else float("nan")


def _needed(changed: Ints, alpha: float) -> Ints:
    """How many of n changed samples must be lost for p < alpha, Int[...]; n + 1 where all would not do."""
    from scipy.special import bdtr

    low, high = np.full_like(changed, -1), changed // 2  # the most gained samples lie in low..high - 1
    while (low < high - 1).any():
        middle = (low + high) // 2
        enough = (middle < 0) | (2 * bdtr(np.maximum(middle, 0), changed, 0.5) < alpha)
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    return changed - low


def _power(changed: Ints, needed: Ints, lost: float, both_ways: float) -> float:
    """Chance that the sign test finds a loss."""
    from scipy.special import bdtr, bdtrc

    samples, share = len(changed) - 1, min(1.0, lost + both_ways)
    chances: Floats = np.diff(bdtr(changed, samples, share), prepend=0.0)
    likely = (chances > _UNLIKELY) & (needed <= changed)
    rejected = bdtrc(needed[likely] - 1, changed[likely], (lost + both_ways / 2) / share)
    return float((chances[likely] * rejected).sum())


_FINER = 20  # how many times finer than alpha the p-value is resolved
_CELLS = 2**22  # of a block of sampled swaps: 32 MB


def rstd_swap_test(first: Grid, second: Grid, *, alpha: float = ALPHA, seed: int = 42) -> float:
    """Two-sided paired permutation test that two tables have the same RStd; the p-value.

    H0: on every sample the two tables could change places, so every way to swap them on some of the samples is equally likely.
    The T rows of a sample move together. Statistic: |RStd of the second - RStd of the first|. Only samples whose right answers
    differ matter. All 2^n swaps of these n are counted if there are at most B = 20 / alpha, else B are drawn at random, and
    p = (1 + number with a statistic at least as great) / (B + 1): valid either way, and fine enough to fall below `alpha`.

    Args:
        first: answers to S samples under T orders.
        second: others to the same samples and orders.
        alpha: the level that the p-value will be held against; for m comparisons that are corrected for, theirs / m.
        seed: of the drawn swaps.

    Returns:
        0 to 1; 1 where the answers stood at fewer than two positions, so that there is no RStd.
    """
    shown = first.rows > 0
    rows, then, now = first.rows[shown], first.hits[:, shown], second.hits[:, shown]
    differs = (then != now).any(axis=1)
    step, low, high = (now - then)[differs].astype(np.float64), then.sum(axis=0), now.sum(axis=0)
    if len(rows) < 2 or not len(step):
        return 1.0

    def statistic(swapped: Floats) -> Floats:
        moved = swapped @ step
        return np.abs(spread((high - moved) / rows) - spread((low + moved) / rows))

    resamples = math.ceil(_FINER / alpha)
    every = 2 ** len(step) <= resamples
    # Equal tables must count as equal, whatever the last bit of their sums.
    least = statistic(np.zeros((1, len(step))))[0] - 1e-9
    blocks = _every_swap(len(step)) if every else _drawn_swaps(len(step), resamples, seed)
    reached = sum(int((statistic(block) >= least).sum()) for block in blocks)
    return reached / 2 ** len(step) if every else (1 + reached) / (resamples + 1)


def _every_swap(n: int) -> Iterator[Floats]:
    yield ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)


def _drawn_swaps(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    generator = np.random.default_rng(seed)
    block = max(1, _CELLS // n)
    for start in range(0, resamples, block):
        yield generator.integers(2, size=(min(block, resamples - start), n), dtype=np.int8).astype(np.float64)
