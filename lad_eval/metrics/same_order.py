"""The same-order control: how much of the disagreement between displayed orders is there within one order already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lad_eval.evidence.table import Floats, Ints
from lad_eval.metrics.bootstrap import RESAMPLES, Estimate, clustered_means, interval


class SameOrder(NamedTuple):
    """Mean pairwise disagreement, in points, with 95 % cluster bootstrap intervals over samples.

    Attributes:
        same: between repetitions of one displayed order; NaN for R = 1, as is the difference then.
        cross: between different displayed orders; NaN for T = 1.
        difference: `cross` - `same`, what the order adds.
        repeats: R.
    """

    same: Estimate
    cross: Estimate
    difference: Estimate
    repeats: int


def disagreement(chosen: Ints) -> Floats:
    """Shares of pairs of replies that differ, Float[S, 2]: within one order, and across two; NaN without such pairs.

    Source: same-order control of Facet-Probe, arXiv 2606.26079: all T R (R - 1) / 2 pairs within, and T (T - 1) R^2 / 2 across.

    Args:
        chosen: Int[S, T, R], what was chosen in each of R repetitions of T orders, or -1, which agrees with itself.
    """
    S, T, R = chosen.shape
    counts = (chosen[..., None] == np.unique(chosen)).sum(axis=2).astype(np.float64)  # [S, T, answers]
    total = counts.sum(axis=1)
    alike = (counts * (counts - 1) / 2).sum(axis=(1, 2))
    alike_in_all = (total * (total - 1) / 2).sum(axis=1)
    pairs = np.array([T * R * (R - 1) / 2, T * (T - 1) * R * R / 2])
    agreeing = np.stack([alike, alike_in_all - alike], axis=1)
    result: Floats = np.divide(pairs - agreeing, pairs, out=np.full((S, 2), np.nan), where=pairs > 0)
    return result


def same_order(chosen: Ints, *, seed: int = 42, resamples: int = RESAMPLES, clusters: Sequence[str] | None = None) -> SameOrder:
    """The control of Int[S, T, R], see `disagreement`; intervals as of `clustered_means`."""
    shares = disagreement(chosen)
    columns = 100 * np.column_stack([shares, shares[:, 1] - shares[:, 0]])
    draws = clustered_means(columns, clusters, resamples, seed)
    same, cross, difference = (Estimate(float(columns[:, i].mean()), *interval(draws[:, i])) for i in range(3))
    return SameOrder(same, cross, difference, chosen.shape[2])
