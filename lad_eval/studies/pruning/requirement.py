"""The run that the study requires: one task, calibrated on enough samples for a trend."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from lad_eval.attention.pruning.trend import ENOUGH_REQUESTS
from lad_eval.errors import UserError
from lad_eval.studies.requirement import Requirement
from lad_eval.tasks.registry import load_spec
from lad_eval.tasks.spec import TaskSpec
from lad_eval.tasks.task import Task


@dataclass(frozen=True)
class TrendRequirement(Requirement):
    """A run with at least as many calibration samples as a trend should be fitted to, each under its N cyclic shifts."""

    @property
    def label(self) -> str:
        return f"{super().label}-pruning"

    def load_task(self) -> Task:
        """The task, with more calibration samples if it has too few.

        Raises:
            UserError: there is no such task, its data is missing or has too few calibration samples, it is calibrated on another
                task, or it has one order only.
        """
        return Task.of(self.changed(load_spec(self.task)), Path(self.task).parent)

    def changed(self, spec: TaskSpec) -> TaskSpec:
        if spec.calibration.on is not None:
            raise UserError(
                f"{spec.name} is calibrated on another task, which the study does not change; name a task of its own."
            )
        samples = max(spec.calibration.samples, math.ceil(ENOUGH_REQUESTS / spec.candidates))
        data = dict(spec.data)
        if "calibration_samples" in data:  # of a source that renders its samples
            data["calibration_samples"] = max(samples, data["calibration_samples"])
        calibration = spec.calibration.model_copy(update={"samples": samples})
        return super().changed(spec).model_copy(update={"calibration": calibration, "data": data})
