"""The order in which tasks are listed, run and shown: a family, then N, then random before adversarial."""

from __future__ import annotations

import re

_SETTINGS = ("random", "adversarial")
_MEMBER = re.compile(rf"(?P<family>.+)_(?P<setting>{'|'.join(_SETTINGS)})_n(?P<n>\d+)(?P<variant>-.*)?")

Natural = list[tuple[int, str]]


def task_order(name: str) -> tuple[Natural, int, int, Natural]:
    """Sort key of a task's name, the order of the bundled groups that name their tasks one by one.

    `scenes_random_n4`, `scenes_adversarial_n4`, `scenes_random_n8`, ..., `scenes_random_n12`; other names by their text, numbers
    in them by value.
    """
    match = _MEMBER.fullmatch(name)
    if match is None:
        return _natural(name), 0, 0, []
    return _natural(match["family"]), int(match["n"]), _SETTINGS.index(match["setting"]), _natural(match["variant"] or "")


def _natural(text: str) -> Natural:
    """Text in which n4 comes before n12."""
    parts = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdigit() else (0, part) for part in parts if part]
