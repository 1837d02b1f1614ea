"""Choosing among pictures in an application: the repair, not the measurement; and the demo that shows both.

`Ranker` is the way in.
"""

from lad_eval.ranking.calibrated import Ranking
from lad_eval.ranking.questions import Question
from lad_eval.ranking.ranker import Ranker

__all__ = ["Question", "Ranker", "Ranking"]
