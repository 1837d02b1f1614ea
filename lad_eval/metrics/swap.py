"""Has the position bias changed? A paired permutation test of a difference in RStd; samples are the units."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lad_eval.evidence import Floats
from lad_eval.metrics.bootstrap import sample_sums
from lad_eval.metrics.exact import ALPHA
from lad_eval.metrics.figures import share, spread
from lad_eval.metrics.predictions import Grid

_FINER = 20  # how many times finer than alpha the p-value is resolved
_CELLS = 2**22  # of a block of drawn swaps: 32 MB


def rstd_swap_test(first: Grid, second: Grid, *, alpha: float = ALPHA, seed: int = 42) -> float:
    """Two-sided paired permutation test that two tables have the same RStd; the p-value.

    H0: on every sample the two tables could change places, so every way to swap them on some of the samples is equally likely. The
    T rows of a sample move together. Statistic: |RStd of the second - RStd of the first|. All 2^n swaps of the n samples whose
    right answers differ are counted where they are few, else B = 20 / alpha of them are drawn, and p = (1 + number with a statistic
    at least as great) / (B + 1): valid either way, and never too coarse to fall below `alpha`.

    Args:
        first: answers to S samples under T orders.
        second: others to the same samples and orders.
        alpha: the level that the p-value will be held against; for m comparisons that are corrected for, theirs / m.
        seed: of the drawn swaps.
    """
    then, now, rows = _hits(first), _hits(second), _rows(first)
    differs = (then != now).any(axis=1)
    step, low, high = (now - then)[differs], then.sum(axis=0), now.sum(axis=0)

    def statistic(swapped: Floats) -> Floats:
        moved = swapped @ step
        return np.abs(
            spread(share(high - moved, np.broadcast_to(rows, moved.shape))) - spread(share(low + moved, rows + 0 * moved))
        )

    observed = float(statistic(np.zeros((1, len(step))))[0])
    if np.isnan(observed) or not len(step):
        return 1.0
    resamples = int(np.ceil(_FINER / alpha))
    every = 2 ** len(step) <= resamples
    # Equal tables must count as equal, whatever the last bit of their sums.
    least = observed - 1e-9
    blocks = _every_swap(len(step)) if every else _drawn_swaps(len(step), resamples, seed)
    reached = sum(int((statistic(block) >= least).sum()) for block in blocks)
    return reached / 2 ** len(step) if every else (1 + reached) / (resamples + 1)


def _hits(grid: Grid) -> Floats:
    """Float[S, N], how many of a sample's rows with the right image at each position were answered right."""
    return sample_sums(grid)[:, 3 : 3 + grid.n_candidates]


def _rows(grid: Grid) -> Floats:
    """Float[N], how many rows had the right image at each position."""
    total: Floats = sample_sums(grid)[:, 3 + grid.n_candidates :].sum(axis=0)
    return total


def _every_swap(n: int) -> Iterator[Floats]:
    yield ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)


def _drawn_swaps(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    generator = np.random.default_rng(seed)
    block = max(1, _CELLS // n)
    for start in range(0, resamples, block):
        yield generator.integers(2, size=(min(block, resamples - start), n), dtype=np.int8).astype(np.float64)
