"""The paper's own figures, where the model is one of the paper's: shown below ours, never mixed into them."""

from __future__ import annotations

from collections.abc import Sequence

from lad_eval.report.rows import Row, reported_rows
from lad_eval.studies.library import Collection
from lad_eval.studies.sheet import Cell


def reported_figures(collection: Collection) -> dict[str, Row]:
    """Published rows of this model on this task, by method."""
    return {row.method: row for row in reported_rows(collection.run.metrics)}


def reported_accuracies(collections: Sequence[Collection], after: int = 0) -> tuple[tuple[Cell, ...], ...]:
    """A row a method that has any published accuracy on these tasks, a cell a task, and `after` empty cells."""
    found = [reported_figures(collection) for collection in collections]
    names = dict.fromkeys(name for figures in found for name in figures)
    return tuple(
        (f"{name} (reported)", *(figures[name].accuracy if name in figures else None for figures in found), *[None] * after)
        for name in names
    )
