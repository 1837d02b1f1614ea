"""From answers to cells, with intervals, and with marks for what is not told apart from the best."""

from __future__ import annotations

from collections.abc import Mapping

from lad_eval.metrics import Predictions, Summary, standings, summarise
from lad_eval.studies.sheet import Measured

TIE_NOTE = (
    "Bold: the best of the column. †: not significantly different from the best "
    "(exact paired test over samples, Holm's correction over the column, 5 %)."
)


def accuracy(found: Summary) -> Measured:
    """Accuracy in points with its 95 % cluster bootstrap interval."""
    return Measured(found.accuracy, found.accuracy_low, found.accuracy_high)


def measured(predictions: Mapping[str, Predictions], *, seed: int) -> dict[str, tuple[Summary, Measured]]:
    """Summary and accuracy of every method, the best and what ties with it marked; all on the same samples."""
    standing = standings({name: table.grid.correct for name, table in predictions.items()})
    summaries = {name: summarise(table, seed=seed) for name, table in predictions.items()}
    return {
        name: (found, accuracy(found)._replace(tied=standing[name].tied, best=standing[name].best))
        for name, found in summaries.items()
    }
