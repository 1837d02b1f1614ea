"""From answers to cells, with intervals, and with marks for what is not told apart from the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lad_eval.metrics import Predictions, Summary, can_differ, detectable_in, standings, summarise
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


def mark_notes(columns: Sequence[Mapping[str, Predictions]]) -> tuple[str, ...]:
    """What a reader must know of the marks of a table: how they are tested, and what so few samples could not have shown.

    Args:
        columns: the answers that each column was `measured` from.
    """
    notes = [TIE_NOTE]
    fewest, rows = min((len(table.grid.sample_id), len(column)) for column in columns for table in column.values())
    if not can_differ(fewest, rows):
        return (*notes, f"With {fewest} samples no difference can be significant: † says nothing here.")
    missed = [detectable_in({name: table.grid.correct for name, table in column.items()}) for column in columns]
    if any(np.isfinite(missed)):
        told = " / ".join(f"{points:.1f}" if np.isfinite(points) else "–" for points in missed)
        notes.append(
            f"By column, the greatest detectable difference of a row with † from the best: {told} points "
            "(found with chance 0.8 at 5 %, before correction); a smaller true difference would likely be missed."
        )
    return tuple(notes)
