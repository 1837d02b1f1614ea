"""Recall by position of every method, with the intervals that its answers allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lad_eval.evidence import Floats
from lad_eval.metrics import recall_intervals
from lad_eval.pages.answers import Answers
from lad_eval.pages.charts import Recall
from lad_eval.pages.names import position_names
from lad_eval.pages.numbers import points
from lad_eval.pages.tables import Table
from lad_eval.pages.text import clean


def recalls_of(
    metrics: Mapping[str, Any], answers: Answers | None, colours: Mapping[str, str] | None = None
) -> dict[str, Recall]:
    """By method, those that have a recall.

    A figure that is a mean over repetitions has no interval: the stored answers are those of the first one.

    Args:
        metrics: `metrics.json`.
        answers: for the intervals; None: there are none.
        colours: class of the style sheet by method.
    """
    found = {}
    for name, figure in metrics["methods"].items():
        values = figure.get("recall")
        if not values:
            continue
        low = high = np.full(len(values), np.nan)
        if answers is not None and name in answers.position and not figure.get("draws"):
            low, high = recall_intervals(answers.gold, answers.position[name], answers.n_candidates)
        found[name] = Recall(clean(name), values, _known(low), _known(high), (colours or {}).get(name, ""))
    return found


def recall_table(recalls: Sequence[Recall]) -> Table:
    """The numbers of a chart of recalls: a row a method, a column a position."""
    names = position_names(len(recalls[0].values))
    return Table(["Method", *names], [[one.name, *_cells(one)] for one in recalls])


def _cells(one: Recall) -> list[str]:
    return [
        points(value) if low is None or high is None else f"{points(value)} [{low:.1f}, {high:.1f}]"
        for value, low, high in zip(one.values, one.low, one.high, strict=True)
    ]


def _known(bounds: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in bounds]
