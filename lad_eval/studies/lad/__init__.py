"""The tables and figures of Logit-Attention Divergence (arXiv 2605.11591), for any model, computed from stored evidence.

part.py      one table or figure: the runs it requires, and how its document is made from them
tables.py    tables 1, 2 and 4 to 8, figures.py: the figures and table 7, transfer.py: table 3
cost.py      time and memory of an answer
family.py    the tasks that stand in for the paper's
run.py       the study from beginning to end

To add a table or figure, write a `StudyPart` and add it to `STUDY_PARTS`.
"""

from __future__ import annotations

from lad_eval.studies.lad.figures import FIGURE1, FIGURE2, FIGURE3, FIGURE5, FIGURE6, FIGURE8, TABLE7
from lad_eval.studies.lad.part import StudyPart
from lad_eval.studies.lad.tables import TABLE1, TABLE2, TABLE4, TABLE5, TABLE6, TABLE8
from lad_eval.studies.lad.transfer import TABLE3

STUDY_PARTS: dict[str, StudyPart] = {
    part.name: part
    for part in (
        TABLE1, FIGURE1, FIGURE2, FIGURE3, TABLE2, TABLE3, TABLE4, TABLE5, FIGURE5, FIGURE6, TABLE6, TABLE7, TABLE8, FIGURE8,
    )
}  # fmt: skip

__all__ = ["STUDY_PARTS", "StudyPart"]
