"""Figures of one method's answers as plain JSON, in points, each with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from lad_eval.metrics import Predictions, paired_test, summarise
from lad_eval.run.asked import Asked
from lad_eval.run.decide import Decision, Rows


def predictions_of(decision: Decision, evaluated: Rows, asked: Asked) -> Predictions:
    """The answers as the metrics' table."""
    return Predictions(
        evaluated.sample_id, np.asarray(asked.permutation_index), evaluated.gold_position, decision.position, evaluated.perm
    )


def figures_of(decision: Decision, evaluated: Rows, asked: Asked, *, seed: int) -> dict[str, Any]:
    """Every figure; None where one is not defined.

    Args:
        decision: answers to the evaluated requests.
        evaluated: their rows, in the same order.
        asked: what was asked.
        seed: of the bootstrap.
    """
    if decision.draws is not None:
        single = [replace(decision, position=position, draws=None) for position in decision.draws]
        return _mean_of([figures_of(one, evaluated, asked, seed=seed) for one in single])
    found = summarise(predictions_of(decision, evaluated, asked), seed=seed)
    return {
        "samples": found.samples,
        "permutations": found.permutations,
        "accuracy": {
            "value": found.accuracy,
            "std": found.accuracy_std,
            "low": _known(found.accuracy_low),
            "high": _known(found.accuracy_high),
        },
        "rstd": {"value": _known(found.rstd), "low": _known(found.rstd_low), "high": _known(found.rstd_high)},
        "consistency": {
            "value": found.consistency,
            "low": _known(found.consistency_low),
            "high": _known(found.consistency_high),
        },
        "all_correct": {
            "value": found.all_correct,
            "low": _known(found.all_correct_low),
            "high": _known(found.all_correct_high),
        },
        "chi_square": {"statistic": _known(found.chi2), "p_value": _known(found.chi2_p)},
        "position_test": {"statistic": _known(found.position_statistic), "p_value": _known(found.position_p)},
        "recall": [_known(value) for value in found.recall],
        "unparsable": found.unparsable,
        "forward_passes": _known(float(decision.passes.mean())),
        "calibration_passes": decision.calibration_passes,
    }


def tests_between(decisions: Mapping[str, Decision], asked: Asked) -> dict[str, dict[str, float]]:
    """{method: {a later method: p-value}} of the exact paired test that two methods are equally accurate, not corrected.

    All pairs are stored, as a table may show any of the methods and corrects for those it shows.
    """
    correct = {name: predictions_of(decision, decision.rows, asked).grid.correct for name, decision in decisions.items()}
    found: dict[str, dict[str, float]] = {}
    for first, second in combinations(correct, 2):
        found.setdefault(first, {})[second] = paired_test(correct[first], correct[second])
    return found


def _mean_of(draws: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures averaged over draws, intervals bound by bound; of tests, the first draw's."""
    averaged = ("accuracy", "rstd", "consistency", "all_correct")
    mean = {name: {key: _mean([draw[name][key] for draw in draws]) for key in draws[0][name]} for name in averaged}
    recall = [_mean(list(column)) for column in zip(*(draw["recall"] for draw in draws), strict=True)]
    return {**draws[0], **mean, "recall": recall, "draws": len(draws)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
