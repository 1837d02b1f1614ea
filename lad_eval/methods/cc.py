"""Contextual calibration: divides the answer to a content-free input out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np

from lad_eval.evidence.table import Evidence, Floats
from lad_eval.methods.calibration import log_softmax, logsumexp
from lad_eval.methods.evidence_method import EvidenceMethod
from lad_eval.parameters import ParameterError, Positive
from lad_eval.tasks.probes import CONTENT_FREE, Probe

Blank = Literal["grey", "noise"]


class ContextualCalibration(EvidenceMethod):
    """Log-probabilities minus those of content-free inputs: a probe, or the mean of several.

    Source: contextual calibration, Zhao et al. 2021 (arXiv 2102.09690) and its released code
    (github.com/tonyzhaozh/few-shot-learning, e04d864): W = diag(p_cf)^-1, b = 0, so score_j = log p_j - log p_cf,j, with p_cf the
    mean of the probabilities for "N/A", "" and "[MASK]", normalised. Which input is content-free where there are images is
    our choice; `probe=words` is domain-context calibration (arXiv 2305.19148).

    Args:
        probe: "both": blank images and the three captions, 3 passes a run; "caption": the question's own images and the three
            captions, 3 passes a question; "images": blank images and the own caption, a pass a sample; "words": calibration
            images, each time with words drawn from the calibration captions, a pass for each calibration pass.
        images: what blank images show, see `lad_eval.tasks.probes.BlankImage`.
        alpha: exponent of p_cf; 1 in the source.

    Attributes:
        log_prior_: Float[N], log p_cf of `probe=words`.
    """

    name = "cc"
    learned_shapes: ClassVar[Mapping[str, str]] = {"log_prior_": "N"}

    log_prior_: Floats

    def __init__(
        self,
        *,
        probe: Literal["both", "caption", "images", "words"] = "both",
        images: Blank = "grey",
        alpha: Annotated[float, Positive()] = 1.0,
    ) -> None:
        self.probe = probe
        self.images = images
        self.alpha = alpha

    def check(self) -> None:
        super().check()
        if self.probe in ("caption", "words") and self.images != "grey":
            raise ParameterError(f"{self.name}: probe={self.probe} shows the question's own images; leave images out.")

    @property
    def calibrates(self) -> bool:  # type: ignore[override]
        return self.probe == "words"

    @property
    def probes(self) -> tuple[Probe, ...]:
        if self.probe == "both":
            return tuple(Probe(self.images, caption) for caption in CONTENT_FREE)
        if self.probe == "caption":
            return tuple(Probe("own", caption) for caption in CONTENT_FREE)
        return (Probe(self.images),) if self.probe == "images" else ()

    @property
    def calibration_probes(self) -> tuple[Probe, ...]:
        return (Probe(caption="words"),) if self.probe == "words" else ()

    def _calibrate(self, evidence: Evidence) -> None:
        [probe] = self.calibration_probes
        self.log_prior_ = log_softmax(logsumexp(log_softmax(evidence.probes[probe.label].log_probs), axis=0))

    def _scores(self, evidence: Evidence) -> Floats:
        if self.calibrates:
            prior = self.log_prior_
        else:
            each = np.stack([log_softmax(evidence.probes[probe.label].log_probs) for probe in self.probes])
            prior = log_softmax(logsumexp(each, axis=0))
        return log_softmax(evidence.log_probs) - self.alpha * prior
