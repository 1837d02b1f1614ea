"""Is the difference between two methods' accuracies chance, and how small a difference could be seen? Samples are the units."""

from __future__ import annotations

import numpy as np

from lad_eval.evidence import Floats
from lad_eval.metrics.predictions import Bools

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
    k of k * (2 X_k - c_k), X_k binomial(c_k, 1/2), whose distribution is computed by convolution; nothing is drawn.

    For T = 1 this is the exact McNemar test. McNemar's on outcomes "right under all orders" asks another question for T > 1.

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
    found = 100 * gains(first, second)
    spread = float(found.std(ddof=1)) if len(found) > 1 else float("nan")
    return detectable(spread, len(found), alpha=alpha, power=power)
