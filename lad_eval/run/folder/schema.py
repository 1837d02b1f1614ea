"""Schemas of `metrics.json` and `predictions.parquet`, and messages on what violates them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lad_eval.evidence.files import MAX_LOG_PROB

if TYPE_CHECKING:
    import pandas as pd

_Name = Annotated[str, Field(min_length=1, max_length=4096)]
_Count = Annotated[int, Field(ge=0, le=2**53, strict=True)]
_Positive = Annotated[int, Field(ge=1, le=2**53, strict=True)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Points = Annotated[float, Field(ge=0, le=100.000001, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Open(BaseModel):
    """Keys that a later version adds are allowed."""

    model_config = ConfigDict(extra="allow")


class _Figure(_Open):
    value: _Points | None
    std: _Points | None = None
    low: _Points | None = None
    high: _Points | None = None


class _Accuracy(_Figure):
    value: _Points


class _Test(_Open):
    statistic: _Finite | None = None
    p_value: _Share | None = None


class _Difference(_Open):
    value: _Finite | None
    low: _Finite | None = None
    high: _Finite | None = None


class _SameOrder(_Open):
    repeats: _Positive
    of: Literal["repetitions", "draws"] = "repetitions"
    d_same: _Figure
    d_cross: _Figure
    delta: _Difference


class _Method(_Open):
    parameters: dict[str, Any] = Field(default_factory=dict)
    condition: dict[str, Any] | None = None
    group: str | None = None
    needs: list[str] = Field(default_factory=list)
    samples: _Positive
    permutations: _Positive
    accuracy: _Accuracy
    rstd: _Figure
    consistency: _Figure
    all_correct: _Figure | None = None
    flip: _Figure | None = None
    flip_parsed: _Points | None = None
    osi: _Figure | None = None
    ckld: _Finite | None = None
    rsd: _Cost | None = None
    bias_score: _Share | None = None
    same_order: _SameOrder | None = None
    policies: dict[str, _Points | None] = Field(default_factory=dict)
    chi_square: _Test = _Test()
    position_test: _Test = _Test()
    recall: list[_Points | None] = Field(default_factory=list)
    unparsable: _Count
    forward_passes: _Cost | None
    calibration_passes: _Cost = 0


class _Tests(_Open):
    accuracy: dict[str, dict[str, _Share]] = Field(default_factory=dict)


class _Calibration(_Open):
    transferred: bool = False
    task: _Name | None = None
    samples: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _named(self) -> _Calibration:
        if self.transferred and self.task is None:
            raise ValueError("a task must be named where the calibration is transferred")
        return self


class _Metrics(_Open):
    model: _Name
    task: _Name
    run: _Name
    limit: _Positive | None
    candidates: Annotated[int, Field(ge=2, le=2**20, strict=True)]
    dtype: str | None
    attention_implementation: str | None
    versions: dict[str, str | None] = Field(default_factory=dict)
    calibration: _Calibration = _Calibration()
    notes: list[str] = Field(default_factory=list)
    left_out: dict[str, str] = Field(default_factory=dict)
    data: dict[str, _Count] = Field(default_factory=dict)
    methods: Annotated[dict[_Name, _Method], Field(min_length=1)]
    tests: _Tests = _Tests()
    reported: dict[str, dict[str, tuple[_Points, _Points | None, _Points | None]]] = Field(default_factory=dict)


def metrics_problem(document: dict[str, Any]) -> str | None:
    """The fault of a run's figures, such as `methods.lad.accuracy.value: ...`; None if there is none."""
    try:
        metrics = _Metrics.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    for name, method in metrics.methods.items():
        if method.recall and len(method.recall) != metrics.candidates:
            return f"methods.{name}.recall: must have {metrics.candidates} entries"
    return None


def predictions_problem(table: pd.DataFrame, candidates: int) -> str | None:
    """The fault of a table of predictions; None if there is none.

    Args:
        table: of `predictions.parquet`.
        candidates: N of the run.
    """
    columns = ("method", "sample_id", "permutation", "order", "gold_position", "position", "correct", "log_proba")
    if missing := [name for name in columns if name not in table.columns]:
        return f"it lacks {', '.join(missing)}"
    if table.empty:
        return "it holds no row"
    try:
        orders = {text: [int(word) for word in text.split()] for text in set(table["order"])}
        numbers = {name: table[name].to_numpy(dtype=np.int64) for name in ("permutation", "gold_position", "position")}
        correct = table["correct"].to_numpy(dtype=np.bool_)
        rows = [None if row is None else np.asarray(row, dtype=np.float64) for row in table["log_proba"]]
    except (ValueError, TypeError, AttributeError, OverflowError):
        return "a column has values of another type"
    gold, position = numbers["gold_position"], numbers["position"]
    if not all(isinstance(name, str) for column in ("method", "sample_id") for name in set(table[column])):
        return "a name is not text"
    if any(sorted(order) != list(range(candidates)) for order in orders.values()):
        return f"an order is not a permutation of {candidates} images"
    if (gold < 0).any() or (gold >= candidates).any() or (position < -1).any() or (position >= candidates).any():
        return f"a position is not one of {candidates}"
    if (numbers["permutation"] < 0).any() or (correct != (gold == position)).any():
        return "its columns contradict each other"
    stored = table.groupby("method", sort=False).agg({"sample_id": "nunique", "permutation": "nunique", "order": "size"})
    incomplete = stored["order"] != stored["sample_id"] * stored["permutation"]
    if incomplete.any() or table.duplicated(["method", "sample_id", "permutation"]).any():
        return "a method lacks an order of a sample, or answers one twice"
    if any(row is not None and (row.shape != (candidates,) or not (row <= MAX_LOG_PROB).all()) for row in rows):
        return "a log-probability is above 0 or not a number"
    return None
