"""One row of a table: one method on one task by one model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """Figures of a method; accuracies, RStd and consistency in points (0-100), None where a figure is not defined.

    Attributes:
        samples: evaluated samples, each asked under `permutations` displayed orders; None for figures published elsewhere.
        accuracy: mean over permutations; `accuracy_std` over permutations; `accuracy_low` and `accuracy_high` bound its interval.
        unparsable: replies that named no candidate, counted as wrong.
        forward_passes: decoder passes per query that the method alone would cost.
        limited: only a part of the task was asked (`--limit`).
    """

    model: str
    task: str
    method: str
    samples: int | None
    permutations: int | None
    accuracy: float | None
    accuracy_std: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    rstd: float | None
    consistency: float | None
    unparsable: int | None
    forward_passes: float | None
    limited: bool = False

    def as_dict(self) -> dict[str, Any]:
        """The row for machines: exactly the keys of `COLUMNS`."""
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS = (
    "model",
    "task",
    "method",
    "samples",
    "permutations",
    "accuracy",
    "accuracy_std",
    "accuracy_low",
    "accuracy_high",
    "rstd",
    "consistency",
    "unparsable",
    "forward_passes",
)


def rows_of(metrics: Mapping[str, Any], methods: Sequence[str] | None = None) -> list[Row]:
    """Rows of one run's `metrics.json`, of these methods in this order (default: all, as stored)."""
    figures: Mapping[str, Mapping[str, Any]] = metrics["methods"]
    return [
        Row(
            model=metrics["model"],
            task=metrics["task"],
            method=name,
            samples=figures[name]["samples"],
            permutations=figures[name]["permutations"],
            accuracy=_number(figures[name]["accuracy"]["value"]),
            accuracy_std=_number(figures[name]["accuracy"].get("std")),
            accuracy_low=_number(figures[name]["accuracy"].get("low")),
            accuracy_high=_number(figures[name]["accuracy"].get("high")),
            rstd=_number(figures[name]["rstd"]["value"]),
            consistency=_number(figures[name]["consistency"]["value"]),
            unparsable=figures[name]["unparsable"],
            forward_passes=_number(figures[name]["forward_passes"]),
            limited=metrics.get("limit") is not None,
        )
        for name in (figures if methods is None else methods)
        if name in figures
    ]


def reported_rows(metrics: Mapping[str, Any]) -> list[Row]:
    """Figures that the task's definition reports from elsewhere: {model: {method: [accuracy, RStd, consistency]}}."""
    return [
        Row(
            model=f"{model} (reported)",
            task=metrics["task"],
            method=method,
            samples=None,
            permutations=None,
            accuracy=accuracy,
            accuracy_std=None,
            accuracy_low=None,
            accuracy_high=None,
            rstd=rstd,
            consistency=consistency,
            unparsable=None,
            forward_passes=None,
        )
        for model, methods in metrics.get("reported", {}).items()
        for method, (accuracy, rstd, consistency) in methods.items()
    ]


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
