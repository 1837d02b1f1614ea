"""The model as it is."""

from __future__ import annotations

from lad_eval.evidence import Evidence, Floats
from lad_eval.methods.base import Method


class Vanilla(Method):
    """The candidate with the greatest log-probability; no debiasing."""

    name = "vanilla"

    def _scores(self, evidence: Evidence) -> Floats:
        return evidence.log_probs
