"""Does position matter? A permutation test on what was chosen under the T displayed orders of every sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lad_eval.evidence import Floats, Ints
from lad_eval.metrics.figures import consistent
from lad_eval.metrics.predictions import UNPARSABLE, Grid

RESAMPLES = 1999
_CELLS = 2**21  # of a block of drawn orders: 16 MB


class PositionTest(NamedTuple):
    """The statistic (no unit; 0: positions are answered exactly as often as H0 expects) and the p-value, 1/(B+1) to 1."""

    statistic: float
    p_value: float


def position_test(grid: Grid, *, resamples: int = RESAMPLES, seed: int = 42) -> PositionTest:
    """Permutation test of "position does not matter".

    H0: the choices of a sample (images, or none) are exchangeable over its T displayed orders: whatever makes a model choose now
    one image and now another, it is not where the images stand. So the T choices of a sample may be dealt to its T orders anew,
    all T! ways alike, samples independently; a dealt choice is answered at the position where its image stands in that order.

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
    kept = ~(consistent(grid.chosen) | (grid.chosen == UNPARSABLE).all(axis=1))
    T, N = len(grid.permutation), grid.n_candidates
    if T == 1 or not kept.any():
        return PositionTest(0.0, 1.0)
    # [S, t, c] -> position of choice c in order t; N stands for no answer and is not counted.
    dealt = np.where(at[kept] == UNPARSABLE, N, at[kept])
    fixed = _counts(grid.predicted[~kept], N)
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
