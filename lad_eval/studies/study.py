"""What a study is, and how it says that something cannot be shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lad_eval.studies.family import Family
from lad_eval.studies.library import Library
from lad_eval.studies.need import Need
from lad_eval.studies.sheet import Sheet


@dataclass(frozen=True)
class Study:
    """A table or a figure of the paper, for one model.

    Attributes:
        name: "table4", "figure6".
        title: what it shows.
        needs: the collections of evidence that it reads, for a family of tasks.
        sheet: makes it from these.
    """

    name: str
    title: str
    needs: Callable[[Family], list[Need]]
    sheet: Callable[[Library, Family], Sheet]


def absent(family: Family, what: str) -> str:
    """A line for `Sheet.missing` where the family has no such task."""
    return f"{what}: the tasks {family.name}_* have none."
