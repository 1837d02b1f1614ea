"""What the answers are worth: figures, their intervals, and tests between methods.

`Predictions` is the table, `summarise` measures one, `compare` several; `figures` holds every figure as a function of arrays.
"""

from lad_eval.metrics.bootstrap import RESAMPLES, Estimate, resampled_means
from lad_eval.metrics.figures import (
    ChiSquare,
    accuracy,
    accuracy_std,
    all_correct,
    chi_square,
    consistency,
    divergence,
    recall,
    rstd,
    unparsable,
)
from lad_eval.metrics.paired import Comparison, McNemar, Outcome, compare, holm, mcnemar, outcomes
from lad_eval.metrics.predictions import UNPARSABLE, Grid, Predictions, PredictionsError
from lad_eval.metrics.summary import Summary, summarise

__all__ = [
    "RESAMPLES",
    "UNPARSABLE",
    "ChiSquare",
    "Comparison",
    "Estimate",
    "Grid",
    "McNemar",
    "Outcome",
    "Predictions",
    "PredictionsError",
    "Summary",
    "accuracy",
    "accuracy_std",
    "all_correct",
    "chi_square",
    "compare",
    "consistency",
    "divergence",
    "holm",
    "mcnemar",
    "outcomes",
    "recall",
    "resampled_means",
    "rstd",
    "summarise",
    "unparsable",
]
