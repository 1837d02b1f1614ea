"""The paper's tables and figures for any model, each decided from stored evidence.

A study is one module with its `Study`; `paper` collects what the studies need and writes what they give.
"""

from lad_eval.studies.ablation import TABLE4
from lad_eval.studies.ceilings import TABLE8
from lad_eval.studies.confusion import FIGURE1, FIGURE8
from lad_eval.studies.costs import TABLE2
from lad_eval.studies.divergence import FIGURE3, TABLE7
from lad_eval.studies.main import TABLE1, TABLE6
from lad_eval.studies.mmiu import TABLE5
from lad_eval.studies.profiles import FIGURE2
from lad_eval.studies.sensitivity import FIGURE6
from lad_eval.studies.sizes import FIGURE5
from lad_eval.studies.study import Study
from lad_eval.studies.transfer import TABLE3

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        TABLE1, FIGURE1, FIGURE2, FIGURE3, TABLE2, TABLE3, TABLE4, TABLE5, FIGURE5, FIGURE6, TABLE6, TABLE7, TABLE8, FIGURE8,
    )
}  # fmt: skip

__all__ = ["STUDIES", "Study"]
