"""Has a model become worse since its baseline? Accuracy, consistency and RStd, paired: the same samples under the same orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lad_eval.evidence.replies import UNPARSABLE
from lad_eval.evidence.table import Floats
from lad_eval.metrics.bootstrap import RESAMPLES, Estimate, figures, interval, resampled_means, sample_sums
from lad_eval.metrics.figures import consistent
from lad_eval.metrics.paired import ALPHA, holm, paired_test
from lad_eval.metrics.power import noticeable_mean, noticeable_rise, rstd_swap_test
from lad_eval.metrics.predictions import Bools, Grid

Figure = Literal["accuracy", "consistency", "rstd", "unparsable"]

RISES: frozenset[Figure] = frozenset({"rstd", "unparsable"})
"""Figures that are worse the higher they are."""


@dataclass(frozen=True)
class Change:
    """One figure of one method, before and now, in points.

    Attributes:
        figure: its name; `unparsable` is the share of replies without an answer.
        before: of the baseline.
        now: of the fresh answers.
        difference: now minus before, with its paired cluster bootstrap interval.
        p_value: two-sided paired test that nothing changed, see `changes`.
        p_holm: the same, corrected for all comparisons made together.
        detectable: the smallest true change for the worse, in points, that the test detects with power 0.8 after correction for
            all comparisons; NaN where no possible change would be found.
    """

    figure: Figure
    before: float
    now: float
    difference: Estimate
    p_value: float
    p_holm: float
    detectable: float

    @property
    def drop(self) -> float:
        """By how many points the figure became worse; below 0 it became better."""
        return self.difference.value if self.figure in RISES else -self.difference.value

    @property
    def largest_drop(self) -> float:
        """The largest drop that the interval does not exclude."""
        return self.difference.high if self.figure in RISES else -self.difference.low

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.difference.high - self.difference.low) / 2


def compared_figures(before: Grid, now: Grid) -> tuple[Figure, ...]:
    """The figures that can differ: consistency takes two orders, RStd answers at two positions, `unparsable` a missing answer."""
    names: list[Figure] = ["accuracy"]
    if before.chosen.shape[1] > 1:
        names.append("consistency")
    if len(np.unique(before.gold)) > 1:
        names.append("rstd")
    if (before.chosen == UNPARSABLE).any() or (now.chosen == UNPARSABLE).any():
        names.append("unparsable")
    return tuple(names)


def changes(pairs: Sequence[tuple[Grid, Grid]], *, level: float = 1 - ALPHA) -> list[tuple[Change, ...]]:
    """Compares methods with themselves at an earlier time; Holm's correction runs over all figures of all pairs.

    Accuracy, consistency and `unparsable` are tested by the exact paired permutation test (`paired_test`), RStd by
    `rstd_swap_test`. All of them hold a sample's before and now exchangeable under "nothing changed".

    Args:
        pairs: before and now, of the same samples and orders.
        level: share that an interval holds; the tests' chance of any false finding is 1 - level.

    Returns:
        For each pair its changes, in the order of `compared_figures`.
    """
    names = [compared_figures(before, now) for before, now in pairs]
    alone = (1 - level) / max(1, sum(map(len, names)))
    blocks = [_changes(before, now, wanted, level, alone) for (before, now), wanted in zip(pairs, names, strict=True)]
    corrected = iter(holm([change.p_value for block in blocks for change in block]).tolist())
    return [tuple(replace(change, p_holm=next(corrected)) for change in block) for block in blocks]


def _changes(before: Grid, now: Grid, names: Sequence[Figure], level: float, alone: float) -> list[Change]:
    sums = np.stack([_sums(before), _sums(now)], axis=1)  # [S, 2, 4 + 2N]: one resampling for both, hence paired
    drawn = resampled_means(sums.reshape(len(sums), -1), RESAMPLES).reshape(RESAMPLES, *sums.shape[1:])
    values, draws = _figures(sums.mean(axis=0)), _figures(drawn)
    made = []
    for name in names:
        (then, value), difference = map(float, values[name]), draws[name][:, 1] - draws[name][:, 0]
        if name == "rstd":
            p_value = rstd_swap_test(before, now, alpha=alone)
            detectable = noticeable_rise(before, now, alpha=alone)
        else:
            first, second = _outcomes(before, name), _outcomes(now, name)
            p_value, detectable = paired_test(first, second), _noticeable_drop(first, second, name, alone)
        estimate = Estimate(value - then, *interval(difference, level))
        made.append(Change(name, then, value, estimate, p_value, p_value, detectable))
    return made


def _noticeable_drop(before: Bools, now: Bools, name: Figure, alone: float) -> float:
    drop = noticeable_mean(now.mean(axis=1) - before.mean(axis=1), 1.0, alpha=alone)
    room = float(1 - before.mean() if name in RISES else before.mean())
    return 100 * drop if drop <= room else float("nan")


def _outcomes(grid: Grid, name: Figure) -> Bools:
    """Bool[S, T], or Bool[S, 1] where a sample has one outcome."""
    if name == "accuracy":
        return grid.correct
    if name == "consistency":
        return consistent(grid.chosen)[:, None]
    return np.asarray(grid.chosen == UNPARSABLE)


def _sums(grid: Grid) -> Floats:
    """Float[S, 4 + 2N]: the share of replies without an answer, then `sample_sums`."""
    return np.column_stack([(grid.chosen == UNPARSABLE).mean(axis=1), sample_sums(grid)])


def _figures(means: Floats) -> dict[Figure, Floats]:
    """Figures in points, Float[...], from means over samples of `_sums`, Float[..., 4 + 2N]."""
    measured = figures(means[..., 1:])
    return {
        "accuracy": measured.accuracy,
        "consistency": measured.consistency,
        "rstd": measured.rstd,
        "unparsable": 100 * means[..., 0],
    }
