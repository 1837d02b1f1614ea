"""Has the position bias changed? A paired permutation test of a difference in RStd; samples are the units."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from lad_eval.evidence import Floats
from lad_eval.metrics.exact import ALPHA
from lad_eval.metrics.figures import spread
from lad_eval.metrics.predictions import Grid

_FINER = 20  # how many times finer than alpha the p-value is resolved
_CELLS = 2**22  # of a block of drawn swaps: 32 MB


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
