"""PriDe: one prior of positions, divided out of every answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from lad_eval.errors import EvidenceError
from lad_eval.evidence.table import Evidence, Floats, Ints
from lad_eval.methods.base import Answers, Requirement, Results, evidence_of
from lad_eval.methods.calibration import log_softmax, logsumexp
from lad_eval.methods.evidence_method import EvidenceMethod
from lad_eval.methods.orders import OrdersMethod
from lad_eval.parameters import Count, Share


class PriDe(EvidenceMethod):
    """Log-probabilities minus one prior of positions, estimated on the calibration samples.

    Source: arXiv 2309.03882 and github.com/chujiezheng/LLM-MCQ-Bias. A sample's prior is the softmax of its mean
    log-probabilities over its N cyclic shifts: every image is at every position once, so what remains is the effect of
    positions. The answer is argmax_j of log p(j) - log prior(j). As in the comparison of arXiv 2605.11591, the prior comes from
    the same calibration passes as LAD's, not from a share of the test set.

    Args:
        prior_mean: how the samples' priors are averaged: "geometric", which subtracts the mean log-probabilities over all
            calibration passes (arXiv 2605.11591), or "arithmetic" (arXiv 2309.03882).

    Attributes:
        log_prior_: Float[N], normalised.
    """

    name = "pride"
    calibrates = True
    learned_shapes: ClassVar[Mapping[str, str]] = {"log_prior_": "N"}

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


# What the authors' code adds to every probability before it takes the logarithm.
_FLOOR = 1e-10


class PriDeOriginal(OrdersMethod):
    """PriDe by its authors' protocol: one prior from a random 5 % of the evaluated samples; mean of 5 draws.

    Source: arXiv 2309.03882 and github.com/chujiezheng/LLM-MCQ-Bias, da14c48, code/debias_pride.py. The drawn samples are run
    under their N cyclic shifts and answered by the mean probability of each image over the shifts; their priors (the softmax of
    the mean log-probabilities of the positions) are averaged arithmetically, and the log of the average is subtracted from the
    log-probabilities of all other samples. As there, int(share n) samples are drawn, and 1e-10 is added to every probability
    before its logarithm.

    Differences: at least one sample is drawn; the draws are independent and determined by `seed`, not
    by shuffles seeded with a path; and each displayed order is a separate test set, whose prior comes from the cyclic shifts
    of that order.

    It has no calibration samples, and its answers depend on the other rows. `predict` gives those of the first draw; the
    figures of a run are means over the draws, at the cost of one draw.

    Args:
        share: of the samples to draw, rounded down, at least one.
        repetitions: number of draws.
        seed: of the draws.
    """

    name = "pride-original"
    needs: frozenset[Requirement] = frozenset({"log_probs"})
    orders = "cyclic"
    moves_letters = True
    transductive = True
    renamed: ClassVar[Mapping[str, str]] = {"draws": "repetitions"}

    def __init__(
        self,
        *,
        share: Annotated[float, Share()] = 0.05,
        repetitions: Annotated[int, Count()] = 5,
        seed: Annotated[int, Count(0)] = 42,
    ) -> None:
        self.share = share
        self.repetitions = repetitions
        self.seed = seed

    def decide(self, results: Results, index: Ints) -> Answers:
        """A question costs its own pass, or those of all its orders if its sample is drawn; mean over the draws."""
        evidence = evidence_of(results, self)
        log_proba = self.predict_over_orders(evidence, index)
        draws = [self.drawn(evidence, index, draw) for draw in range(self.repetitions)]
        repetitions = np.stack([scores.argmax(axis=1) for scores, _ in draws]).astype(np.int64)
        spent = evidence.forward_passes[index]
        passes = np.mean([np.where(drawn, spent.sum(axis=1), spent[:, 0]) for _, drawn in draws], axis=0)
        return Answers(log_proba, repetitions[0], passes, repetitions)

    def drawn(self, evidence: Evidence, index: Ints, draw: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """Log-probabilities Float[m, N] of one draw, and which of the m questions are of drawn samples.

        Args:
            evidence: rows of all orders.
            index: Int[m, N], as for `predict_over_orders`.
            draw: from 0 to repetitions - 1.
        """
        shown = index[:, 0]
        ids, orders = evidence.sample_id[shown], evidence.perm[shown]
        samples = np.unique(ids)
        count = max(1, int(self.share * len(samples)))
        chosen = np.random.default_rng([self.seed, draw]).choice(samples, size=count, replace=False)
        estimated: npt.NDArray[np.bool_] = np.isin(ids, chosen)

        logs = log_softmax(evidence.log_probs)
        floored = _floored(logs)
        priors = log_softmax(floored[index].mean(axis=1))
        answers = np.empty((len(shown), evidence.n_candidates))
        group = np.unique(orders, axis=0, return_inverse=True)[1].reshape(len(shown))
        for order in range(int(group.max()) + 1):
            rows = group == order
            # A row in an order that no drawn sample was shown in uses the prior of all drawn samples.
            learned = priors[rows & estimated] if (rows & estimated).any() else priors[estimated]
            answers[rows] = floored[shown[rows]] - _floored(log_softmax(logsumexp(learned, axis=0)))
        by_image = np.empty_like(logs)
        np.put_along_axis(by_image, evidence.perm, logs, axis=1)
        # Log of the sum of each image's probabilities over the shifts: N times the mean.
        mean = logsumexp(by_image[index[estimated]], axis=1)
        answers[estimated] = np.take_along_axis(mean, orders[estimated], axis=1)
        return log_softmax(answers), estimated

    def predict_over_orders(self, evidence: Evidence, index: Ints) -> Floats:
        """Log-probabilities of the first draw; see `OrdersMethod.predict_over_orders`."""
        self.check()
        if not len(evidence):
            raise EvidenceError(f"{self.name} got no rows of evidence.")
        return self.drawn(evidence, index, 0)[0]


def _floored(log_probs: Floats) -> Floats:
    """log(p + 1e-10), so that a probability near 0 does not dominate."""
    floored: Floats = np.log(np.exp(log_probs) + _FLOOR)
    return floored
