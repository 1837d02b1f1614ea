"""What the answers are worth: figures, their intervals, and tests between methods.

`Predictions` is the table, `summarise` measures one, `compare` several, `changes` says what became of a method,
`standings` says which are no worse than the best;
`figures` holds every figure as a function of arrays.
"""

from lad_eval.metrics.best import Standing, can_differ, detectable_in, equal, standings, standings_by
from lad_eval.metrics.bootstrap import RESAMPLES, Estimate, recall_intervals, resampled_means
from lad_eval.metrics.change import Change, Figure, changes
from lad_eval.metrics.exact import ALPHA, detectable, detectable_between, gains, paired_test
from lad_eval.metrics.figures import (
    ChiSquare,
    accuracy,
    accuracy_std,
    all_correct,
    chi_square,
    confusion,
    consistency,
    divergence,
    recall,
    row_shares,
    rstd,
    unparsable,
)
from lad_eval.metrics.paired import Comparison, McNemar, Outcome, compare, holm, mcnemar, outcomes
from lad_eval.metrics.position import PositionTest, position_test
from lad_eval.metrics.power import noticeable_mean, noticeable_rise, noticeable_share
from lad_eval.metrics.predictions import UNPARSABLE, Grid, Predictions, PredictionsError
from lad_eval.metrics.summary import Summary, summarise
from lad_eval.metrics.swap import rstd_swap_test

__all__ = [
    "ALPHA",
    "RESAMPLES",
    "UNPARSABLE",
    "Change",
    "ChiSquare",
    "Comparison",
    "Estimate",
    "Figure",
    "Grid",
    "McNemar",
    "Outcome",
    "PositionTest",
    "Predictions",
    "PredictionsError",
    "Standing",
    "Summary",
    "accuracy",
    "accuracy_std",
    "all_correct",
    "can_differ",
    "changes",
    "chi_square",
    "compare",
    "confusion",
    "consistency",
    "detectable",
    "detectable_between",
    "detectable_in",
    "divergence",
    "equal",
    "gains",
    "holm",
    "mcnemar",
    "noticeable_mean",
    "noticeable_rise",
    "noticeable_share",
    "outcomes",
    "paired_test",
    "position_test",
    "recall",
    "recall_intervals",
    "resampled_means",
    "row_shares",
    "rstd",
    "rstd_swap_test",
    "standings",
    "standings_by",
    "summarise",
    "unparsable",
]
