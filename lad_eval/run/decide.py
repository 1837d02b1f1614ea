"""From evidence to answers: calibrate a method, let it see what it needs, keep the answers to the evaluated requests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lad_eval.evidence import Evidence, Floats, Ints
from lad_eval.methods import Method
from lad_eval.run.asked import Asked


@dataclass(frozen=True)
class Decision:
    """A method's answers to the evaluated requests, n of them.

    Attributes:
        log_proba: Float[n, N] of the displayed positions.
        position: Int[n], the answer, 0-based.
        passes: Float[n], decoder passes that the answer would cost if the method were run alone.
        calibration_passes: decoder passes of the calibration; 0 for a method that does not calibrate.
    """

    log_proba: Floats
    position: Ints
    passes: Floats
    calibration_passes: int


def decide(evidence: Evidence, asked: Asked, method: Method) -> Decision:
    """The method's answers.

    Raises:
        EvidenceError: evidence is missing or not what the method needs.
        ResultsError: the run did not ask what the method needs.
    """
    calibration_passes = 0
    if method.calibrates:
        learned_from = evidence.select_keys(asked.calibration_keys(method))
        method.calibrate(learned_from)
        calibration_passes = int(learned_from.forward_passes.sum())
    seen = asked.seen_by(method)
    log_proba = method.predict_log_proba(evidence.select_keys(seen))
    if seen != list(asked.evaluated):
        row = {key: i for i, key in enumerate(seen)}
        log_proba = log_proba[[row[key] for key in asked.evaluated]]
    position = log_proba.argmax(axis=1).astype(np.int64)
    return Decision(log_proba, position, asked.passes_of(method, evidence), calibration_passes)
