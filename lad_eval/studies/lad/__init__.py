"""The paper's tables and figures for any model, each decided from stored evidence.

A study is one module with its `Study`; `paper` collects what the studies need and writes what they give.
"""

from __future__ import annotations

from lad_eval.studies.lad.figures import FIGURE1, FIGURE2, FIGURE3, FIGURE5, FIGURE6, FIGURE8, TABLE7
from lad_eval.studies.lad.library import Study
from lad_eval.studies.lad.tables import TABLE1, TABLE2, TABLE4, TABLE5, TABLE6, TABLE8
from lad_eval.studies.lad.transfer import TABLE3

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        TABLE1, FIGURE1, FIGURE2, FIGURE3, TABLE2, TABLE3, TABLE4, TABLE5, FIGURE5, FIGURE6, TABLE6, TABLE7, TABLE8, FIGURE8,
    )
}  # fmt: skip

__all__ = ["STUDIES", "Study"]
