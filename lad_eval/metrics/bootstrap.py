"""Cluster bootstrap: whole samples are resampled with replacement, so that the T rows of a sample stay together.

Every figure is a function of per-sample sums, so a resample is one row of counts times one matrix of sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lad_eval.evidence.table import Floats, Ints
from lad_eval.metrics import audit
from lad_eval.metrics import figures as formulas
from lad_eval.metrics.figures import consistent, position_test, share, spread
from lad_eval.metrics.predictions import Grid, Predictions

RESAMPLES = 2000
_CELLS = 2**20  # of a block of counts: 8 MB, several times over, whatever the number of samples


class Estimate(NamedTuple):
    """A figure and its 95 % percentile interval."""

    value: float
    low: float
    high: float


class FigureArrays(NamedTuple):
    """Figures in points, each Float[B], of B resamples; or of the data themselves, Float[]."""

    accuracy: Floats
    rstd: Floats
    consistency: Floats
    all_correct: Floats


def sample_sums(grid: Grid) -> Floats:
    """Float[S, 3 + 2N], per sample: share right, consistent, all right, then by the answer's position rows right and rows."""
    correct, N = grid.correct, grid.n_candidates
    at = grid.gold[:, :, None] == np.arange(N)
    return np.column_stack(
        [
            correct.mean(axis=1),
            consistent(grid.chosen),
            correct.all(axis=1),
            (at & correct[:, :, None]).sum(axis=1),
            at.sum(axis=1),
        ]
    ).astype(np.float64)


def figures(means: Floats) -> FigureArrays:
    """Figures from means over samples of `sample_sums`, Float[..., 3 + 2N]."""
    N = (means.shape[-1] - 3) // 2
    recall = share(means[..., 3 : 3 + N], means[..., 3 + N :])
    return FigureArrays(100 * means[..., 0], 100 * spread(recall), 100 * means[..., 1], 100 * means[..., 2])


def resampled_means(sums: Floats, resamples: int = RESAMPLES, seed: int = 42) -> Floats:
    """Means over samples of Float[S, F] in each of B resamples, Float[B, F].

    The counts depend on `S`, `resamples` and `seed` only: tables of the same samples are resampled in the same way and so are
    paired.
    """
    return np.concatenate([counts @ sums for counts in _counts(len(sums), resamples, seed)]) / len(sums)


def clustered_means(sums: Floats, clusters: Sequence[str] | None, resamples: int = RESAMPLES, seed: int = 42) -> Floats:
    """As `resampled_means`, where whole clusters of samples are resampled; each mean is over the samples of its resample.

    Args:
        sums: Float[S, F].
        clusters: S labels; None: every sample is its own cluster.
        resamples: B.
        seed: of the resamples.
    """
    if clusters is None:
        return resampled_means(sums, resamples, seed)
    labels, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    joined = np.zeros((len(labels), sums.shape[1] + 1))
    np.add.at(joined, cluster, np.column_stack([sums, np.ones(len(sums))]))
    means = resampled_means(joined, resamples, seed)
    return means[:, :-1] / means[:, -1:]


def interval(draws: Floats, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of Float[B] that holds the share `level`.

    Resamples without a value (NaN) are left out; (NaN, NaN) if none has one.
    """
    known = draws[~np.isnan(draws)]
    if not len(known):
        return np.nan, np.nan
    tail = round((1 - level) / 2, 12)  # 0.025 rather than 0.025000000000000022
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def recall_intervals(
    gold: Ints, predicted: Ints, n_candidates: int, *, resamples: int = RESAMPLES, seed: int = 42
) -> tuple[Floats, Floats]:
    """Bounds of the 95 % intervals of the recall by position, Float[N] each, in points; NaN for positions without a right image.

    Cluster bootstrap over samples. Where all rows of a position are right, or all are wrong, resampling cannot vary; the bounds
    are then exact binomial ones (Clopper-Pearson) with the samples that have rows there as trials.

    Args:
        gold: Int[S, T], positions.
        predicted: Int[S, T], positions or UNPARSABLE.
        n_candidates: N.
    """
    at = gold[:, :, None] == np.arange(n_candidates)
    rows = at.sum(axis=1)
    hits = (at & (predicted == gold)[:, :, None]).sum(axis=1)
    means = resampled_means(np.column_stack([hits, rows]).astype(np.float64), resamples, seed)
    draws = 100 * share(means[:, :n_candidates], means[:, n_candidates:])
    bounds = np.asarray([interval(column) for column in draws.T])
    samples = np.maximum((rows > 0).sum(axis=0), 1)
    all_right, all_wrong = hits.sum(axis=0) == rows.sum(axis=0), hits.sum(axis=0) == 0
    reach = 100 * 0.025 ** (1 / samples)
    known = rows.sum(axis=0) > 0
    low = np.where(all_right & known, reach, bounds[:, 0])
    high = np.where(all_wrong & known, 100 - reach, bounds[:, 1])
    return low, high


def _counts(samples: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Number of times that each resample holds each sample, in blocks Float[b, S]."""
    generator = np.random.default_rng(seed)
    block = max(1, _CELLS // samples)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = generator.integers(samples, size=(size, samples)) + samples * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * samples).reshape(size, samples).astype(np.float64)


@dataclass(frozen=True)
class Summary:
    """Figures in points, 0 to 100, unless stated otherwise; `_low` and `_high` bound 95 % cluster bootstrap intervals.

    The intervals are percentiles: they shrink to a point where every sample agrees (accuracy 100), and for an RStd near 0 they
    lie high, since noise only adds spread.

    Attributes:
        accuracy: mean over samples and permutations; an unparsable reply is wrong.
        accuracy_std: standard deviation over the permutations, T - 1 in the denominator.
        rstd: standard deviation of the recall over positions, N - 1 in the denominator. NaN if the answers stood at fewer than
            two positions.
        consistency: share of samples whose chosen image is the same under all permutations.
        all_correct: share of samples that are right under all permutations.
        chi2: Pearson's statistic (no unit) of the answered positions against equal shares; NaN without any answer.
        chi2_p: its p-value (0 to 1), rows taken as independent.
        position_statistic: of the permutation test of "position does not matter" (no unit), see `position_test`.
        position_p: its p-value (0 to 1), which takes samples, not rows, as independent.
        recall: by position of the answer.
        unparsable: number of rows without an answer.
        samples: S.
        permutations: T.
        flip: share of samples that are not answered alike under all permutations, see `audit.flip_rate`.
        flip_parsed: the same with replies without an answer left out.
        osi: order-sensitivity index, 0 to 1, see `audit.osi`.
        ckld: divergence of right positions from answered ones in nats, see `audit.ckld`.
        rsd: relative standard deviation of the recall (no unit), see `audit.rsd`; NaN if nothing is right.
    """

    accuracy: float
    accuracy_std: float
    accuracy_low: float
    accuracy_high: float
    rstd: float
    rstd_low: float
    rstd_high: float
    consistency: float
    consistency_low: float
    consistency_high: float
    all_correct: float
    all_correct_low: float
    all_correct_high: float
    chi2: float
    chi2_p: float
    position_statistic: float
    position_p: float
    recall: tuple[float, ...]
    unparsable: int
    samples: int
    permutations: int
    flip: float
    flip_low: float
    flip_high: float
    flip_parsed: float
    osi: float
    osi_low: float
    osi_high: float
    ckld: float
    rsd: float


def summarise(
    predictions: Predictions, *, seed: int = 42, resamples: int = RESAMPLES, clusters: Mapping[str, str] | None = None
) -> Summary:
    """All figures of a table of predictions; intervals and tests are the same for the same seed.

    Args:
        predictions: the table.
        seed: of the bootstrap and the position test.
        resamples: B.
        clusters: cluster by sample id, where samples depend on each other: intervals then resample whole clusters.
    """
    grid = predictions.grid
    correct, N = grid.correct, grid.n_candidates
    sums = np.column_stack([sample_sums(grid), audit.flips(grid.chosen), audit.order_entropy(grid.chosen, N)])
    labels = None if clusters is None else [clusters[sample] for sample in grid.sample_id.tolist()]
    means = clustered_means(sums, labels, resamples, seed)
    draws = figures(means[:, :-2])
    flip_low, flip_high = interval(100 * means[:, -2])
    osi_low, osi_high = interval(means[:, -1])
    accuracy_low, accuracy_high = interval(draws.accuracy)
    rstd_low, rstd_high = interval(draws.rstd)
    consistency_low, consistency_high = interval(draws.consistency)
    all_correct_low, all_correct_high = interval(draws.all_correct)
    chi = formulas.chi_square(grid.predicted, N)
    position = position_test(grid, seed=seed)
    return Summary(
        accuracy=formulas.accuracy(correct),
        accuracy_std=formulas.accuracy_std(correct),
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        rstd=formulas.rstd(grid.gold, grid.predicted, N),
        rstd_low=rstd_low,
        rstd_high=rstd_high,
        consistency=formulas.consistency(grid.chosen),
        consistency_low=consistency_low,
        consistency_high=consistency_high,
        all_correct=formulas.all_correct(correct),
        all_correct_low=all_correct_low,
        all_correct_high=all_correct_high,
        chi2=chi.statistic,
        chi2_p=chi.p_value,
        position_statistic=position.statistic,
        position_p=position.p_value,
        recall=tuple(formulas.recall(grid.gold, grid.predicted, N).tolist()),
        unparsable=formulas.unparsable(grid.predicted),
        samples=len(grid.sample_id),
        permutations=len(grid.permutation),
        flip=audit.flip_rate(grid.chosen),
        flip_low=flip_low,
        flip_high=flip_high,
        flip_parsed=audit.flip_rate(grid.chosen, released=True),
        osi=audit.osi(grid.chosen, N),
        osi_low=osi_low,
        osi_high=osi_high,
        ckld=audit.ckld(grid.gold, grid.predicted, N),
        rsd=audit.rsd(grid.gold, grid.predicted, N),
    )
