"""PriDe: one prior of positions, taken out of every answer."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from lad_eval.evidence import Evidence, Floats
from lad_eval.methods.base import Method
from lad_eval.methods.numerics import log_softmax, logsumexp
from lad_eval.methods.parameters import Choice


class PriDe(Method):
    """Log-probabilities minus one prior of positions, estimated on the calibration samples.

    Source: arXiv 2309.03882 and github.com/chujiezheng/LLM-MCQ-Bias. A sample's prior is the softmax of its mean
    log-probabilities over its N cyclic shifts: every image stood everywhere, so what is left is the position's own. The answer is
    argmax_j of log p(j) - log prior(j). As in the comparison of arXiv 2605.11591, the prior comes from the same calibration
    passes as LAD's, not from a share of the test set.

    Args:
        prior_mean: how the samples' priors are averaged: "geometric", which is to subtract the mean log-probabilities over all
            calibration passes (arXiv 2605.11591), or "arithmetic" (arXiv 2309.03882).

    Attributes:
        log_prior_: Float[N], normalised.
    """

    name = "pride"
    calibrates = True
    parameters: ClassVar = {"prior_mean": Choice(("geometric", "arithmetic"))}

    log_prior_: Floats

    def __init__(self, *, prior_mean: Literal["geometric", "arithmetic"] = "geometric") -> None:
        self.prior_mean = prior_mean

    def _calibrate(self, evidence: Evidence) -> None:
        samples, sample = np.unique(evidence.sample_id, return_inverse=True)
        of_sample = np.zeros((len(samples), evidence.n_candidates))
        np.add.at(of_sample, sample, evidence.log_probs / evidence.n_candidates)
        sample_priors = log_softmax(of_sample)
        geometric = self.prior_mean == "geometric"
        self.log_prior_ = log_softmax(sample_priors.mean(axis=0) if geometric else logsumexp(sample_priors, axis=0))

    def _scores(self, evidence: Evidence) -> Floats:
        return evidence.log_probs - self.log_prior_
