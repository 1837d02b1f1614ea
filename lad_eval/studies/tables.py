"""Cells, columns and series that the tables and figures of several studies have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lad_eval.metrics import Comparison, Predictions, Summary, can_differ, detectable_in, significance, summarise
from lad_eval.report.panels import Series
from lad_eval.report.table import Cell, Content, Table, figure

TIE_NOTE = (
    "Bold: the best of the column. †: not significantly different from the best "
    "(exact paired test over samples, Holm's correction over the column, 5 %)."
)


def accuracy(summary: Summary) -> Cell:
    """Accuracy in points with its 95 % cluster bootstrap interval."""
    return figure(summary.accuracy, low=summary.accuracy_low, high=summary.accuracy_high)


def measured(predictions: Mapping[str, Predictions], *, seed: int) -> dict[str, tuple[Summary, Cell]]:
    """Summary and accuracy of every method, with the best and its ties marked; all on the same samples."""
    tested = significance({name: table.grid.correct for name, table in predictions.items()})
    summaries = {name: summarise(table, seed=seed) for name, table in predictions.items()}
    return {
        name: (summary, replace(accuracy(summary), tied=tested[name].tied, best=tested[name].best))
        for name, summary in summaries.items()
    }


def mark_notes(columns: Sequence[Mapping[str, Predictions]]) -> tuple[str, ...]:
    """Notes on a table's marks: how they are tested, and what so few samples could not have shown.

    Args:
        columns: the predictions that each column was `measured` from.
    """
    notes = [TIE_NOTE]
    fewest, rows = min((len(table.grid.sample_id), len(column)) for column in columns for table in column.values())
    if not can_differ(fewest, rows):
        return (*notes, f"With {fewest} samples no difference can be significant: † says nothing here.")
    missed = [detectable_in({name: table.grid.correct for name, table in column.items()}) for column in columns]
    if any(np.isfinite(missed)):
        points_missed = " / ".join(f"{points:.1f}" if np.isfinite(points) else "–" for points in missed)
        notes.append(
            f"By column, the greatest detectable difference of a row with † from the best: {points_missed} points "
            "(power 0.8 at 5 %, before correction); a smaller true difference would likely be missed."
        )
    return tuple(notes)


def interval_cells(summary: Summary) -> tuple[Cell, Cell, Cell]:
    """Accuracy, RStd and consistency in points with their 95 % intervals."""
    return (
        accuracy(summary),
        figure(summary.rstd, summary.rstd_low, summary.rstd_high),
        figure(summary.consistency, summary.consistency_low, summary.consistency_high),
    )


def difference_cells(pair: Comparison) -> tuple[Cell, Cell, Cell]:
    """Differences of accuracy, RStd and consistency in points with their paired 95 % intervals."""
    return figure(*pair.accuracy), figure(*pair.rstd), figure(*pair.consistency)


def accuracy_table(title: str, columns: Sequence[str], predictions: Sequence[Mapping[str, Predictions]], *, seed: int) -> Table:
    """One row per method: its name, and for each task its accuracy with significance marks.

    Args:
        columns: names of the columns, the methods' first.
        predictions: by method, for each task; all of a task on the same samples.
    """
    cells = [measured(column, seed=seed) for column in predictions]
    rows: list[tuple[Content, ...]] = [(name, *(column[name][1] for column in cells)) for name in predictions[0]]
    return Table(title, columns, rows, mark_notes(predictions))


def accuracy_series(name: str, x: Sequence[float], summaries: Sequence[Summary]) -> Series:
    """Accuracy in points at each x, with its 95 % intervals."""
    accuracies, low, high = (
        np.asarray([getattr(summary, key) for summary in summaries], dtype=np.float64)
        for key in ("accuracy", "accuracy_low", "accuracy_high")
    )
    return Series(name, np.asarray(x, dtype=np.float64), accuracies, low, high)
