"""Batch calibration: takes out what the evaluated rows answer on average."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from lad_eval.evidence.table import Evidence, Floats, Ints
from lad_eval.methods.base import Answers, Results, evidence_of, passes_of
from lad_eval.methods.calibration import log_softmax
from lad_eval.methods.evidence_method import EvidenceMethod, most_probable


class BatchCalibration(EvidenceMethod):
    """Log-probabilities minus their mean over all evaluated rows.

    Source: batch calibration, Zhou et al. 2023 (arXiv 2309.17249): score_j = log p_j - mean log p_j, the mean over the batch.
    It assumes that the right answers of the batch are spread evenly over the positions. On calibration samples in all their
    cyclic shifts, where they are, it is PriDe with the geometric mean. On the evaluated rows an answer depends on the other
    samples: with a limit the same question may be answered otherwise.

    Args:
        space: "log", or "probability": score_j = p_j - mean p_j, as in third-party code.
        batch: the rows of a mean: the whole "run", or those shown in the same "order".
    """

    name = "batch-calibration"
    transductive: ClassVar[bool] = True

    def __init__(self, *, space: Literal["log", "probability"] = "log", batch: Literal["run", "order"] = "run") -> None:
        self.space = space
        self.batch = batch

    def decide(self, results: Results, index: Ints) -> Answers:
        """The batch is the rows of the questions, whatever else was run."""
        log_proba = self.predict_log_proba(evidence_of(results, self).select(index[:, 0]))
        return Answers(log_proba, most_probable(log_proba), passes_of(results, index))

    def _scores(self, evidence: Evidence) -> Floats:
        logs = log_softmax(evidence.log_probs)
        values: Floats = logs if self.space == "log" else np.exp(logs)
        if self.batch == "run":
            means: Floats = values.mean(axis=0, keepdims=True)
        else:
            orders, of_row = np.unique(evidence.perm, axis=0, return_inverse=True)
            member = np.eye(len(orders))[of_row.reshape(len(evidence))]  # [rows, orders]
            means = member @ ((member.T @ values) / member.sum(axis=0)[:, None])
        scores: Floats = values - means
        return scores
