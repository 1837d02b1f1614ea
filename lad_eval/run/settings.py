"""What a run is asked for: tasks, methods, the model's options, and where results go."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from lad_eval.models.base import ImagePreparation
from lad_eval.models.prompts.date import DEFAULT_DATE
from lad_eval.models.source import display_name
from lad_eval.tasks.task import Task

Overwrite = Literal["never", "missing", "always"]


@dataclass(frozen=True)
class Settings:
    """Settings of a run; the model's options are those of `load_model`.

    Attributes:
        tasks: names of tasks, groups, globs, or paths of YAML files.
        methods: None: each task takes those of `DEFAULT_METHODS` that can decide between its options.
        limit: number of samples of each task, from the first, or if below 1 a share of them, rounded up; None: all.
        overwrite: "missing" resumes and computes only what is missing; "never" shows what is finished and changes nothing;
            "always" starts over, and the old run is kept until the new one is finished.
        seed: of the bootstrap and of `random:` models.
        calibrate_on: another task whose calibration samples replace the tasks' own.
        date: YYYY-MM-DD, for chat templates that print today's date.
        reported: after a task's rows, add the published results of the same model from the task's definition.
        study: the study that the run is made for; None: the user's own run.
    """

    model: str
    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] | None = ()
    limit: int | float | None = None
    batch_size: int | Literal["auto"] = "auto"
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | None = None
    attn: str | None = None
    revision: str | None = None
    adapter: str | None = None
    image_preparation: ImagePreparation = "protocol"
    trust_remote_code: bool = False
    date: str = DEFAULT_DATE
    out: Path = Path("results/runs")
    overwrite: Overwrite = "missing"
    seed: int = 42
    quiet: bool = False
    calibrate_on: str | None = None
    reported: bool = False
    study: str | None = None
    base_url: str | None = None
    concurrency: int | None = None
    timeout: float | None = None
    extra_body: Mapping[str, Any] | None = None

    def samples_of(self, task: Task) -> int | None:
        """How many samples of a task are evaluated; None: all."""
        if self.limit is None or self.limit >= 1:
            return None if self.limit is None else int(self.limit)
        total = sum(1 for _ in task.samples("test"))
        return max(1, math.ceil(self.limit * total))

    @property
    def shared(self) -> dict[str, str]:
        """The options that several processes of a run must have in common, by name."""
        of_each = {"out", "quiet", "device", "batch_size", "base_url", "concurrency", "timeout"}
        chosen = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in of_each}
        return {name.replace("_", "-"): "not given" if value is None else str(value) for name, value in chosen.items()}

    @property
    def model_name(self) -> str:
        """What tables and run folders call the model.

        Raises:
            UserError: its folder holds an adapter that names no base.
        """
        return display_name(self.model, self.adapter, self.revision)
