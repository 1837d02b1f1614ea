"""Which tasks play the parts of the paper's: a family has random and adversarial retrieval at several N."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lad_eval.errors import UserError
from lad_eval.tasks.registry import task_names

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
    found: dict[str, dict[tuple[str, int], str]] = {}
    for name in names:
        if match := _MEMBER.fullmatch(name):
            found.setdefault(match["family"], {})[match["setting"], int(match["n"])] = name
    return found
