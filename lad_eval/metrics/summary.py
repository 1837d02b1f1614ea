"""Everything that is reported about one table of predictions."""

from __future__ import annotations

from dataclasses import dataclass

from lad_eval.metrics import figures
from lad_eval.metrics.bootstrap import RESAMPLES, interval, resampled_means, sample_sums
from lad_eval.metrics.bootstrap import figures as figures_of
from lad_eval.metrics.position import position_test
from lad_eval.metrics.predictions import Predictions


@dataclass(frozen=True)
class Summary:
    """Figures in points, 0 to 100, unless said otherwise; `_low` and `_high` bound 95 % cluster bootstrap intervals.

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


def summarise(predictions: Predictions, *, seed: int = 42, resamples: int = RESAMPLES) -> Summary:
    """All figures of a table of predictions; intervals and tests are the same for the same seed."""
    grid = predictions.grid
    correct, N = grid.correct, grid.n_candidates
    draws = figures_of(resampled_means(sample_sums(grid), resamples, seed))
    accuracy_low, accuracy_high = interval(draws.accuracy)
    rstd_low, rstd_high = interval(draws.rstd)
    consistency_low, consistency_high = interval(draws.consistency)
    all_correct_low, all_correct_high = interval(draws.all_correct)
    chi = figures.chi_square(grid.predicted, N)
    position = position_test(grid, seed=seed)
    return Summary(
        accuracy=figures.accuracy(correct),
        accuracy_std=figures.accuracy_std(correct),
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        rstd=figures.rstd(grid.gold, grid.predicted, N),
        rstd_low=rstd_low,
        rstd_high=rstd_high,
        consistency=figures.consistency(grid.chosen),
        consistency_low=consistency_low,
        consistency_high=consistency_high,
        all_correct=figures.all_correct(correct),
        all_correct_low=all_correct_low,
        all_correct_high=all_correct_high,
        chi2=chi.statistic,
        chi2_p=chi.p_value,
        position_statistic=position.statistic,
        position_p=position.p_value,
        recall=tuple(figures.recall(grid.gold, grid.predicted, N).tolist()),
        unparsable=figures.unparsable(grid.predicted),
        samples=len(grid.sample_id),
        permutations=len(grid.permutation),
    )
