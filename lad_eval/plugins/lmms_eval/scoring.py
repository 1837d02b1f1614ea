"""The metrics that lmms-eval reports: accuracy, its spread over orders, RStd, consistency, recall by position, unparsable "
"replies.

All are shares from 0 to 1, as usual there, except `unparsable`, a count. A value carries `score` only where the mean of scores
is the metric, because lmms-eval computes standard errors from it, clustered by `sample`.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from lad_eval.metrics import UNPARSABLE, Grid, Predictions, figures
from lad_eval.plugins import scoring
from lad_eval.plugins.documents import Document
from lad_eval.plugins.scoring import position_of

logger = logging.getLogger(__name__)

Value = Mapping[str, Any]


def results(document: Document, replies: Sequence[str]) -> dict[str, Value]:
    """`process_results`: for every metric what its aggregation needs of one reply."""
    position = position_of(document, replies[0])
    score = float(position == document["gold"])
    answer = {
        "sample": document["sample"],
        "group": document["sample"],
        "permutation": document["permutation"],
        "orders": document["orders"],
        "candidates": len(document["identifiers"]),
        "gold": document["gold"],
        "position": position,
        "order": document["order"],
    }
    right = {"sample": document["sample"], "score": score}
    emitted: dict[str, Value] = {
        "accuracy": right,
        "rstd": answer,
        f"recall_{document['gold'] + 1}": right,
        "unparsable": {"missing": int(position == UNPARSABLE)},
    }
    if document["orders"] > 1:  # one order is consistent with itself
        emitted |= {"accuracy_std": answer, "consistency": answer}
    return emitted


def accuracy(values: Sequence[Value]) -> float:
    """Mean over samples and orders; a reply without an answer is wrong."""
    return float(np.mean([value["score"] for value in values]))


def accuracy_std(values: Sequence[Value]) -> float:
    """Standard deviation of the T orders' accuracies; NaN without a sample that was answered under all its orders."""
    grid = _grid(values)
    return math.nan if grid is None else figures.accuracy_std(grid.correct) / 100


def rstd(values: Sequence[Value]) -> float:
    """Standard deviation of the recall over positions; NaN if the answers stood at fewer than two."""
    gold, positions = ([value[name] for value in values] for name in ("gold", "position"))
    return scoring.rstd(gold, positions, values[0]["candidates"])


def consistency(values: Sequence[Value]) -> float:
    """Share of samples whose chosen image is the same under all orders; NaN without a sample that was answered under all."""
    grid = _grid(values)
    return math.nan if grid is None else figures.consistency(grid.chosen) / 100


def unparsable(values: Sequence[Value]) -> int:
    """Number of replies that do not name exactly one candidate."""
    return sum(value["missing"] for value in values)


def _grid(values: Sequence[Value]) -> Grid | None:
    """The answers to samples that were answered under all their orders (the first, if repeated); None without any."""
    groups: dict[str, dict[int, Value]] = defaultdict(dict)
    for value in values:
        groups[value["group"]].setdefault(value["permutation"], value)
    whole = [value for of in groups.values() if len(of) == values[0]["orders"] for value in of.values()]
    samples = {value["group"] for value in whole}
    if len(samples) < len(groups):
        _warn(len(groups) - len(samples), values[0]["orders"])
    if not whole:
        return None
    columns = ([value[name] for value in whole] for name in ("group", "permutation", "gold", "position", "order"))
    return Predictions(*map(np.asarray, columns)).grid


@cache
def _warn(cut: int, orders: int) -> None:
    logger.warning(
        "%d sample%s not run under all %d orders and %s not count for consistency: make --limit a multiple of %d.",
        cut,
        " was" if cut == 1 else "s were",
        orders,
        "does" if cut == 1 else "do",
        orders,
    )
