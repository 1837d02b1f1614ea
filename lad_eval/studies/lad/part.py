"""One table or figure of the study, and what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lad_eval.studies.document import StudyDocument
from lad_eval.studies.lad.cost import AnswerCost
from lad_eval.studies.lad.family import TaskFamily
from lad_eval.studies.requirement import Requirement
from lad_eval.studies.runs import RunIndex


@dataclass(frozen=True)
class StudyData:
    """The data behind the tables and figures.

    Attributes:
        runs: those that the parts require.
        family: the tasks that take the place of the paper's.
        costs: time and memory per answer on the machine of the run; empty where not measured.
    """

    runs: RunIndex
    family: TaskFamily
    costs: Sequence[AnswerCost] = ()


@dataclass(frozen=True)
class StudyPart:
    """A table or a figure of the paper, for one model.

    Attributes:
        name: "table4", "figure6".
        title: what it shows.
        requirements: the runs that it reads, for a family of tasks.
        document: makes it from these.
    """

    name: str
    title: str
    requirements: Callable[[TaskFamily], list[Requirement]]
    document: Callable[[StudyData], StudyDocument]
