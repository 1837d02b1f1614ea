"""The task that the study asks: one of the user's, calibrated on enough samples for a trend."""

from __future__ import annotations

import math
from pathlib import Path

from lad_eval.attention.pruning.trend import ENOUGH_REQUESTS
from lad_eval.errors import UserError
from lad_eval.tasks.registry import load_spec
from lad_eval.tasks.task import Task


def task_of(name: str) -> Task:
    """The task with at least as many calibration samples as a trend should be fitted to, each under its N cyclic shifts.

    Args:
        name: of a task, or the path of its file.

    Raises:
        UserError: there is no such task, its data is missing or has too few calibration samples, or it runs in one order only.
    """
    spec = load_spec(name)
    if spec.calibration.on is not None:
        raise UserError(f"{spec.name} is calibrated on another task, which the study does not change; name a task of its own.")
    samples = max(spec.calibration.samples, math.ceil(ENOUGH_REQUESTS / spec.candidates))
    data = dict(spec.data)
    if "calibration_samples" in data:  # of a source that draws them
        data["calibration_samples"] = max(samples, data["calibration_samples"])
    calibration = spec.calibration.model_copy(update={"samples": samples})
    changed = spec.model_copy(update={"name": f"{spec.name}-pruning", "calibration": calibration, "data": data})
    return Task.of(changed, Path(name).parent)
