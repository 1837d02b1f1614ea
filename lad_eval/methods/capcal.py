"""CapCal: subtracts the probabilities that the question alone has, with its images blank."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np

from lad_eval.evidence.table import Evidence, Floats
from lad_eval.methods.calibration import log_softmax
from lad_eval.methods.cc import Blank
from lad_eval.methods.evidence_method import EvidenceMethod
from lad_eval.parameters import ParameterError, Positive
from lad_eval.tasks.probes import Probe

_FLOOR = 1e-12
_SENSITIVITY, _MOST = 5.0, 2.0


class CapCal(EvidenceMethod):
    """Probabilities minus the excess over 1/N that they have with blank images and the same caption.

    Source: CapCal (arXiv 2604.10150) and its released code (github.com/USTC-StarTeam/CapCal, 941f6d3): score_j = p_j - alpha
    (p_cf,j - 1/N), there with every passage replaced by a placeholder, and here every image. The scores add up to 1; one that
    is not above 0 counts as almost 0 in the probabilities, which does not change the answer. Here p is normalised over the
    candidates first. A sample has one probe, whatever the order.

    Args:
        rate: "fixed", or "adaptive": alpha = min(5 H(p) / ln N, 2) of each row, H its entropy, as released.
        alpha: of the fixed rate.
        images: what blank images show, see `lad_eval.tasks.probes.BlankImage`.
    """

    name = "capcal"

    def __init__(
        self,
        *,
        rate: Literal["fixed", "adaptive"] = "fixed",
        alpha: Annotated[float, Positive()] = 1.0,
        images: Blank = "grey",
    ) -> None:
        self.rate = rate
        self.alpha = alpha
        self.images = images

    def check(self) -> None:
        super().check()
        if self.rate == "adaptive" and self.alpha != 1:
            raise ParameterError(f"{self.name}: rate=adaptive computes alpha for each question; leave alpha out.")

    @property
    def probes(self) -> tuple[Probe, ...]:
        return (Probe(self.images),)

    def _scores(self, evidence: Evidence) -> Floats:
        [probe] = self.probes
        free = np.exp(log_softmax(evidence.probes[probe.label].log_probs))
        return np.log(np.maximum(self._corrected(np.exp(log_softmax(evidence.log_probs)), free), _FLOOR))

    def _corrected(self, probabilities: Floats, free: Floats) -> Floats:
        """Float[n, N], each row with sum 1, from the probabilities of the questions and of their probes."""
        n = probabilities.shape[1]
        rate: float | Floats = self.alpha
        if self.rate == "adaptive":
            entropy = -(probabilities * np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))).sum(axis=1, keepdims=True)
            rate = np.minimum(_SENSITIVITY * entropy / np.log(n), _MOST)
        corrected: Floats = probabilities - rate * (free - 1 / n)
        return corrected
