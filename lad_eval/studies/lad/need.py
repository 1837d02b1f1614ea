"""What a study needs of the model: a task, perhaps changed in one respect, under some methods."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lad_eval.errors import UserError
from lad_eval.tasks.prompts import IdentifierStyle
from lad_eval.tasks.registry import load_spec, load_task, task_names
from lad_eval.tasks.spec import TaskSpec
from lad_eval.tasks.task import Task

IDENTIFIERS: dict[IdentifierStyle, str] = {"1..": "numbers", "A..": "letters", "I..": "roman", "first..": "words"}


@dataclass(frozen=True)
class Need:
    """One collection of evidence.

    Attributes:
        task: name of a task, or the path of its file.
        methods: those that must be decided, which says what has to be asked.
        identifiers: the candidates' names, where not the task's own.
        calibration_samples: their number, where not the task's own.
        optional: a study that lacks it can show the rest.
    """

    task: str
    methods: tuple[str, ...] = ()
    identifiers: IdentifierStyle | None = None
    calibration_samples: int | None = None
    optional: bool = False

    @property
    def label(self) -> str:
        """The name under which its run is kept: the task's, and what is changed."""
        name = Path(self.task).stem if self.task.endswith((".yaml", ".yml")) else self.task
        if self.identifiers is not None:
            name += f"-{IDENTIFIERS[self.identifiers]}"
        if self.calibration_samples is not None:
            name += f"-calibration{self.calibration_samples}"
        return name

    def open(self) -> Task:
        """The task, changed as needed.

        Raises:
            UserError: there is no such task, or its data is missing.
        """
        if self.identifiers is None and self.calibration_samples is None:
            return load_task(self.task)
        return Task.of(self._changed(load_spec(self.task)), Path(self.task).parent)

    def _changed(self, spec: TaskSpec) -> TaskSpec:
        update: dict[str, object] = {"name": self.label}
        if self.identifiers is not None:
            update["identifiers"] = self.identifiers
        if self.calibration_samples is not None:
            update["calibration"] = spec.calibration.model_copy(update={"samples": self.calibration_samples})
        return spec.model_copy(update=update)


def merged(needs: Iterable[Need]) -> list[Need]:
    """Every collection once, with the methods of all who need it, in the order in which they first came."""
    by_label: dict[str, Need] = {}
    for need in needs:
        known = by_label.get(need.label)
        methods = tuple(dict.fromkeys([*(known.methods if known else ()), *need.methods]))
        by_label[need.label] = replace(need, methods=methods, optional=need.optional and (known is None or known.optional))
    return list(by_label.values())


_MEMBER = re.compile(r"(?P<family>\w+?)_(?P<setting>random|adversarial)_n(?P<n>\d+)")

SETTINGS = ("random", "adversarial")


@dataclass(frozen=True)
class Family:
    """Tasks `<name>_<setting>_n<N>`.

    Attributes:
        tasks: task name by setting and N.
        transfer: another family with the same captions' style to carry the calibration from and to, if there is one.
    """

    name: str
    tasks: dict[tuple[str, int], str]
    transfer: dict[tuple[str, int], str]

    def has(self, setting: str, n: int) -> bool:
        return (setting, n) in self.tasks

    def main(self) -> list[tuple[str, int, str]]:
        """(setting, N, task) of the main comparison: N = 4 and 8, random first."""
        return [(setting, n, self.tasks[setting, n]) for setting in SETTINGS for n in (4, 8) if self.has(setting, n)]

    def sizes(self, setting: str) -> list[int]:
        """All N of a setting, ascending."""
        return sorted(n for known, n in self.tasks if known == setting)


def families() -> list[str]:
    """Names of the families among the bundled tasks that have the main comparison."""
    members = _members(task_names())
    return [name for name, tasks in members.items() if ("random", 4) in tasks]


def family(name: str) -> Family:
    """The family of a name.

    Raises:
        UserError: there is none.
    """
    members = _members(task_names())
    if name not in families():
        raise UserError(f"There is no family of tasks {name!r}; there are {', '.join(families())}.")
    return Family(name, members[name], members.get("flickr8k", {}) if name == "coco" else {})


def _members(names: Iterable[str]) -> dict[str, dict[tuple[str, int], str]]:
    members: dict[str, dict[tuple[str, int], str]] = {}
    for name in names:
        if match := _MEMBER.fullmatch(name):
            members.setdefault(match["family"], {})[match["setting"], int(match["n"])] = name
    return members
