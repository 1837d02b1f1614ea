"""Options of the embedded data: `source: scenes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

from pydantic import Field, StrictInt

from lad_eval.errors import DataError
from lad_eval.tasks.sample import Source
from lad_eval.tasks.sources.base import SourceOptions


class ScenesOptions(SourceOptions):
    """Seed of the drawn scenes, and how many calibration samples there are for a task to take the first of."""

    seed: StrictInt = 0
    calibration_samples: Annotated[StrictInt, Field(ge=1)] = 20

    def open(self, *, setting: str, candidates: int, samples: int | None, calibration_samples: int, folder: Path) -> Source:
        from lad_eval.tasks.sources.scenes import ScenesSource, Setting

        if samples is None:
            raise DataError("The source 'scenes' has no end: set `samples:` in the task.")
        return ScenesSource(
            setting=cast(Setting, setting),  # the source itself refuses a setting that it does not know
            candidates=candidates,
            samples=samples,
            calibration_samples=self.calibration_samples,
            seed=self.seed,
        )
