"""How large must a change for the worse be before a paired test on so many samples finds it?"""

from __future__ import annotations

import numpy as np

from lad_eval.evidence import Floats, Ints
from lad_eval.metrics.exact import ALPHA, POWER
from lad_eval.metrics.figures import recall, spread
from lad_eval.metrics.predictions import Grid

_HALVINGS = 20  # to a millionth of the samples
_UNLIKELY = 1e-9


def noticeable_share(samples: int, both_ways: float = 0.0, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest share of samples that must be lost for the exact paired test to find it with chance `power`.

    A sample is lost as a whole, under all its orders: of all falls by as much this one varies most from sample to sample, so that
    any other fall in one direction is found at least as well. Beside the lost samples, a share `both_ways` of the samples changes
    without a change on the whole, half of them for the better. So the paired differences have the variance both_ways + d - d^2 at
    a loss of d, and the chance is exact: the numbers of changed and of lost samples are binomial, the test is the sign test.

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


def noticeable_rise(grid: Grid, deviation: float = 0.0, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest rise of RStd, in points, that a paired test finds with chance `power`; an approximation.

    Without chance differences it is the rise that comes of a share `noticeable_share` of samples being answered right if and only if
    the right image stands at one of the favoured positions: the k with the highest recall, k such that RStd rises most. So a rise
    that comes of more samples, each changed less, is found at least as well. Chance differences widen it as they widen a mean's:
    with f that rise and c = (z_{1 - alpha/2} + z_power) * deviation it is f / 2 + sqrt(f^2 / 4 + c^2).

    Args:
        grid: answers of the baseline.
        deviation: standard deviation of the paired difference in RStd, in points; 0 if nothing differs.
        alpha: level of the two-sided test.
        power: the chance.

    Returns:
        Points; NaN where no such rise would be found, or RStd cannot rise so far.
    """
    from scipy.special import ndtri

    lost = noticeable_share(len(grid.sample_id), alpha=alpha, power=power)
    hit = recall(grid.gold, grid.predicted, grid.n_candidates)
    known = -np.sort(-hit[~np.isnan(hit)])
    favoured = 100.0 * np.tri(len(known))
    fewest, most = (float(spread((1 - part) * known + part * favoured).max() - spread(known)) for part in (lost, 1.0))
    chance = float(ndtri(1 - alpha / 2) + ndtri(power)) * deviation
    rise = fewest / 2 + float(np.hypot(fewest / 2, chance))
    return rise if 0 < rise <= most else float("nan")


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
    found = bdtrc(needed[likely] - 1, changed[likely], (lost + both_ways / 2) / share)
    return float((chances[likely] * found).sum())
