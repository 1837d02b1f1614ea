"""Choosing among images in an application: the repair rather than the measurement; and the demo that shows both.

Start with `Ranker`.
"""

from lad_eval.ranking.calibrated import Ranking
from lad_eval.ranking.questions import Question
from lad_eval.ranking.ranker import Ranker

__all__ = ["Question", "Ranker", "Ranking"]
