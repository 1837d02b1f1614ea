"""What inspect_ai reports: figures of samples, so that their standard errors are clustered by sample, and RStd."""

from __future__ import annotations

from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, mean, metric, scorer, stderr
from inspect_ai.solver import TaskState

from lad_eval.plugins.replying import decided_positions, reply_method
from lad_eval.plugins.scoring import answers_table, name_of, score_sample
from lad_eval.plugins.scoring import rstd as rstd_of

REPLIES = "replies"
"""Where the solver leaves what deciding needs, in a sample's store."""


@metric  # type: ignore[untyped-decorator]
def rstd() -> Metric:
    """Standard deviation of the recall over N positions, a share; of all samples at once, so that it has no standard error."""

    def compute(scores: list[SampleScore]) -> float:
        shown = [score.score.metadata or {} for score in scores]
        if not shown:
            return float("nan")
        gold, positions = ([place for each in shown for place in each[name]] for name in ("gold", "positions"))
        return rstd_of(gold, positions, shown[0]["candidates"])

    return compute


@scorer(metrics={"acc": [mean(), stderr(), rstd()], "*": [mean(), stderr()]})  # type: ignore[untyped-decorator]
def over_orders(method: str) -> Scorer:
    """What the method decides from the replies, as `lad_eval.plugins.scoring.score_sample` scores it."""
    decides = reply_method(method, "inspect_ai")

    async def score(state: TaskState, target: Target) -> Score:
        documents = state.metadata["orders"]
        positions = decided_positions(documents, decides, state.store.get(REPLIES))
        return Score(
            value=dict(score_sample(documents, positions)),
            answer=" ".join(map(name_of, documents, positions)),
            explanation=answers_table(documents, positions),
            metadata={"gold": [d["gold"] for d in documents], "positions": positions, "candidates": len(documents[0]["order"])},
        )

    return score
