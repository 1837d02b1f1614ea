"""LAD: subtracts the position bias that is expected given the model's attention to the images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np

from lad_eval.evidence.table import Evidence, Floats, Span
from lad_eval.methods.base import MethodWarning
from lad_eval.methods.calibration import Mean, log_softmax, logsumexp, mean_by_gold
from lad_eval.methods.evidence_method import EvidenceMethod
from lad_eval.methods.readout import (
    AttentionMean,
    LayerChoice,
    Temperature,
    TopK,
    log_prior,
    purified_attention,
    strongest_layers,
)


class NoVisualSignalWarning(MethodWarning):
    """No calibration pass preferred its answer: the gain is at most 1 and is taken as 1."""


class LAD(EvidenceMethod):
    """Log-probabilities minus the position bias expected under the purified attention.

    Source: "Logit-Attention Divergence" (arXiv 2605.11591), and its released code (github.com/brightXian/LAD, c704b9d). The
    defaults are the released code's form, which produced the reported numbers; the preset `lad-paper` is the equations as
    printed. With i the answer's position, j a position:

    - log P_obs(j|i): mean over the calibration passes with the answer at i (Eq. 1), see `bias_mean`;
    - gain (Eq. 4): log g = max over i and j != i of [log P_obs(i|i) - log P_obs(j|i)]; if it is not above 0, no pass showed a
      visual signal: a NoVisualSignalWarning is given and log g = 0;
    - log P_bias(j|i) = log P_obs(j|i) - [i = j] log g (Eq. 5);
    - pi: the purified attention (Eq. 7-12), see `purified_attention`;
    - answer: argmax_j of log p(j) - expected bias(j) (Eq. 14), see `mixture`.

    Args:
        top_k: number of layers in L*, those with the most attention to all images together.
        temperature: tau, sharpens pi.
        layers: the layers L* is chosen from: "upper" (released code), "all" (paper), or (first, last), counted from 0, inclusive.
        attention_mean: "arithmetic": log of the mean attention over L* (released code); "log": mean of the logs (Eq. 11).
        bias_mean: P_obs as the mean of log-probabilities ("log", released code) or of probabilities ("probability", Eq. 1).
        mixture: expected bias as sum_k pi_k log P_bias(j|k) ("log", released code) or log sum_k pi_k P_bias(j|k)
            ("probability", Eq. 13).
        span: an image's tokens with their delimiters ("delimited", released code) or without ("image", Eq. 6).
        attention_prior: "calibration" divides the mean attention to each position out (Eq. 7); "none" does not, an ablation.

    Attributes:
        log_bias_: Float[N, N], log P_bias, row i for the answer's position.
        log_gain_: log g, natural.
        log_attention_prior_: Float[L, N]; zeros without a prior.
    """

    name = "lad"
    needs = frozenset({"log_probs", "attention"})
    calibrates = True
    reads_right_images = True
    learned_shapes: ClassVar[Mapping[str, str]] = {"log_bias_": "NN", "log_gain_": "", "log_attention_prior_": "LN"}

    log_bias_: Floats
    log_gain_: float
    log_attention_prior_: Floats

    def __init__(
        self,
        *,
        top_k: TopK = 2,
        temperature: Temperature = 5.0,
        layers: LayerChoice = "upper",
        attention_mean: AttentionMean = "arithmetic",
        bias_mean: Mean = "log",
        mixture: Mean = "log",
        span: Span = "delimited",
        attention_prior: Literal["calibration", "none"] = "calibration",
    ) -> None:
        self.top_k = top_k
        self.temperature = temperature
        self.layers = layers
        self.attention_mean = attention_mean
        self.bias_mean = bias_mean
        self.mixture = mixture
        self.span = span
        self.attention_prior = attention_prior

    def _calibrate(self, evidence: Evidence) -> None:
        prior = log_prior(self._attention(evidence))
        self.log_attention_prior_ = prior if self.attention_prior == "calibration" else np.zeros_like(prior)
        log_observed = self._log_observed(evidence)
        self.log_gain_ = _log_gain(log_observed)
        self.log_bias_ = log_observed - self.log_gain_ * np.eye(evidence.n_candidates)

    def _log_observed(self, evidence: Evidence) -> Floats:
        """Log P_obs, Float[N, N]."""
        return mean_by_gold(evidence.log_probs, evidence.gold_position, self.bias_mean)

    def _log_posterior(self, evidence: Evidence) -> Floats:
        """Log pi, Float[n, N]."""
        attention = self._attention(evidence)
        chosen = strongest_layers(attention, self.layers, self.top_k, method=self.name)
        return purified_attention(attention, self.log_attention_prior_, chosen, self.attention_mean, self.temperature)

    def layer_shares(self, evidence: Evidence) -> Floats:
        """Float[L]: share of the rows in which each layer is one of L* (Eq. 8-9)."""
        attention = self._attention(evidence)
        chosen = strongest_layers(attention, self.layers, self.top_k)
        return np.bincount(chosen.ravel(), minlength=attention.shape[1]) / len(attention)

    def _scores(self, evidence: Evidence) -> Floats:
        log_posterior = self._log_posterior(evidence)
        if self.mixture == "log":
            expected_bias = np.exp(log_posterior) @ self.log_bias_
        else:
            expected_bias = logsumexp(log_posterior[:, None, :] + self.log_bias_.T, axis=2)
        return evidence.log_probs - expected_bias


class UnlabelledLAD(LAD):
    """LAD calibrated without gold labels: the purified attention takes the place of the answers.

    Not in the paper. log P_obs(j|i) is the mean over all calibration passes, each weighted by the posterior pi_i that its own
    purified attention gives to the image at i (Eq. 7-12 with the prior of the same passes); the rest is LAD's. The samples are
    still shown under their N cyclic shifts, since every image must be at every position equally often; their
    `gold_position` is read by the check of that design only, where any image may take the place of the right one.
    """

    name = "lad-unlabelled"
    reads_right_images = False

    def _log_observed(self, evidence: Evidence) -> Floats:
        log_posterior = self._log_posterior(evidence)
        log_weights = log_posterior - logsumexp(log_posterior, axis=0)
        logs = log_softmax(evidence.log_probs)
        if self.bias_mean == "log":
            mean: Floats = np.exp(log_weights).T @ logs
            return mean
        return logsumexp(log_weights.T[:, :, None] + logs[None], axis=1)


def _log_gain(log_observed: Floats) -> float:
    """The gain as log g, from log P_obs Float[N, N] (Eq. 4), at least 0."""
    advantage = np.diag(log_observed)[:, None] - log_observed
    np.fill_diagonal(advantage, -np.inf)
    log_gain = float(advantage.max())
    if log_gain > 0:
        return log_gain
    warnings.warn(
        f"The calibration shows no visual signal (gain {np.exp(log_gain):.3g}, not above 1): the bias is used as observed.",
        NoVisualSignalWarning,
        stacklevel=2,
    )
    return 0.0
