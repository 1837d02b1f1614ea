"""Families of tasks `<family>_<setting>_n<N>`, which take the place of the paper's main tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lad_eval.errors import UserError
from lad_eval.tasks.registry import task_names

SETTINGS = ("random", "adversarial")
_MEMBER = re.compile(r"(?P<family>\w+?)_(?P<setting>random|adversarial)_n(?P<n>\d+)")


@dataclass(frozen=True)
class TaskFamily:
    """Tasks `<name>_<setting>_n<N>`.

    Attributes:
        tasks: task name by setting and N.
        transfer: tasks of another family with captions of the same style, for transferring calibrations; empty if there is none.
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

    def lacks(self, what: str) -> str:
        """A line for `StudyDocument.missing` where the family has no such task."""
        return f"{what}: the tasks {self.name}_* do not include it."


def families() -> list[str]:
    """Names of the families among the bundled tasks that have the main comparison."""
    members = _members(task_names())
    return [name for name, tasks in members.items() if ("random", 4) in tasks]


def task_family(name: str) -> TaskFamily:
    """The family of a name.

    Raises:
        UserError: there is none.
    """
    members = _members(task_names())
    if name not in families():
        raise UserError(f"Unknown family of tasks {name!r}; there are {', '.join(families())}.")
    return TaskFamily(name, members[name], members.get("flickr8k", {}) if name == "coco" else {})


def _members(names: Iterable[str]) -> dict[str, dict[tuple[str, int], str]]:
    members: dict[str, dict[tuple[str, int], str]] = {}
    for name in names:
        if match := _MEMBER.fullmatch(name):
            members.setdefault(match["family"], {})[match["setting"], int(match["n"])] = name
    return members
