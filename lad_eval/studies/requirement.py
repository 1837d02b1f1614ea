"""The runs that a study requires: a task, perhaps changed in one respect, and its methods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lad_eval.tasks.prompts import IdentifierStyle
from lad_eval.tasks.registry import load_spec, load_task
from lad_eval.tasks.spec import TaskSpec
from lad_eval.tasks.task import Task

IDENTIFIERS: dict[IdentifierStyle, str] = {"1..": "numbers", "A..": "letters", "I..": "roman", "first..": "words"}


@dataclass(frozen=True)
class Requirement:
    """One run.

    Attributes:
        task: name of a task, or the path of its file.
        methods: names of the methods that must be evaluated; they determine which requests the model answers.
        identifiers: the candidates' names, if other than the task's own.
        calibration_samples: number of calibration samples, if other than the task's own.
        optional: the study can show the rest without this run.
    """

    task: str
    methods: tuple[str, ...] = ()
    identifiers: IdentifierStyle | None = None
    calibration_samples: int | None = None
    optional: bool = False

    @property
    def label(self) -> str:
        """The task name under which the run is stored: the task's own name and what is changed in it."""
        name = Path(self.task).stem if self.task.endswith((".yaml", ".yml")) else self.task
        if self.identifiers is not None:
            name += f"-{IDENTIFIERS[self.identifiers]}"
        if self.calibration_samples is not None:
            name += f"-calibration{self.calibration_samples}"
        return name

    def load_task(self) -> Task:
        """The task, with the changes.

        Raises:
            UserError: there is no such task, or its data is missing.
        """
        if self.identifiers is None and self.calibration_samples is None:
            return load_task(self.task)
        return Task.of(self.changed(load_spec(self.task)), Path(self.task).parent)

    def changed(self, spec: TaskSpec) -> TaskSpec:
        """The task's definition with the changes, under the name `label`."""
        update: dict[str, object] = {"name": self.label}
        if self.identifiers is not None:
            update["identifiers"] = self.identifiers
        if self.calibration_samples is not None:
            update["calibration"] = spec.calibration.model_copy(update={"samples": self.calibration_samples})
        return spec.model_copy(update=update)


def merged(requirements: Iterable[Requirement]) -> list[Requirement]:
    """One requirement per label, in order of first occurrence, with the methods of all that share the label."""
    by_label: dict[str, Requirement] = {}
    for requirement in requirements:
        known = by_label.get(requirement.label)
        methods = tuple(dict.fromkeys([*(known.methods if known else ()), *requirement.methods]))
        optional = requirement.optional and (known is None or known.optional)
        by_label[requirement.label] = replace(requirement, methods=methods, optional=optional)
    return list(by_label.values())
