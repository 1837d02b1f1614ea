"""From answers to cells, with intervals, and with marks for what is not told apart from the best."""

from __future__ import annotations

from collections.abc import Mapping

from lad_eval.metrics import Predictions, Summary, compare, summarise
from lad_eval.studies.sheet import Measured

SIGNIFICANT = 0.05
TIE_NOTE = (
    "Bold: the best of the column. †: not significantly different from the best "
    "(exact McNemar test on samples that are right under all orders, Holm's correction over the column, 5 %)."
)


def accuracy(found: Summary) -> Measured:
    """Accuracy in points with its 95 % cluster bootstrap interval."""
    return Measured(found.accuracy, found.accuracy_low, found.accuracy_high)


def measured(predictions: Mapping[str, Predictions], *, seed: int) -> dict[str, tuple[Summary, Measured]]:
    """Summary and accuracy of every method, the best and what ties with it marked; all on the same samples."""
    summaries = {name: summarise(table, seed=seed) for name, table in predictions.items()}
    best = max(summaries, key=lambda name: summaries[name].accuracy)
    tied = {pair.first for pair in compare(predictions, against=best, seed=seed) if pair.p_holm > SIGNIFICANT}
    return {name: (found, accuracy(found)._replace(tied=name in tied, best=name == best)) for name, found in summaries.items()}
