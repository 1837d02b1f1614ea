"""The folder of one run, and how its files come and go: each is whole or absent."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lad_eval.errors import UserError
from lad_eval.evidence.files import MAX_LOG_PROB
from lad_eval.files import documents
from lad_eval.files.documents import write_json
from lad_eval.methods import Condition, stored_name
from lad_eval.run.spec import RunSpec, digest_of

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
    """Keys that a later version adds are left alone."""

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


class _Method(_Open):
    parameters: dict[str, Any] = Field(default_factory=dict)
    condition: dict[str, Any] | None = None
    samples: _Positive
    permutations: _Positive
    accuracy: _Accuracy
    rstd: _Figure
    consistency: _Figure
    all_correct: _Figure | None = None
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
    data: dict[str, _Count] = Field(default_factory=dict)
    methods: Annotated[dict[_Name, _Method], Field(min_length=1)]
    tests: _Tests = _Tests()
    reported: dict[str, dict[str, tuple[_Points, _Points | None, _Points | None]]] = Field(default_factory=dict)


def metrics_problem(document: dict[str, Any]) -> str | None:
    """What is wrong with a run's figures, as `methods.lad.accuracy.value: ...`; None if nothing is."""
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
    """What is wrong with a table of predictions; None if nothing is.

    Args:
        table: as `predictions.parquet` holds it.
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
        return "a column does not hold what it should"
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
        return "a log-probability is not one"
    return None


SPEC = "spec.json"
PLAN = "plan.json"
METRICS = "metrics.json"
TASK = "task.json"
PREDICTIONS = "predictions.parquet"
CONDITIONS = "conditions"
AGAIN = "Run the command that made the run again to rewrite it."

logger = logging.getLogger(__name__)


class ResultsError(UserError):
    """A results folder that cannot be used as wanted."""


def slug(name: str) -> str:
    """A model or task name as the name of a folder: `Qwen/Qwen2.5-VL-3B-Instruct` -> `Qwen-Qwen2.5-VL-3B-Instruct`."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "model"


def folder_of(out: Path, spec: RunSpec) -> Path:
    return out / slug(spec.model) / slug(spec.task) / spec.digest


def condition_folder(run: Path, condition: Condition) -> Path:
    """Where a run keeps its answers under a condition: its own folder for the question and the model as they are."""
    return run / CONDITIONS / slug(condition.label) if condition.label else run


def ensure_writable(out: Path) -> None:
    """Makes the results folder.

    Raises:
        ResultsError: nothing can be written there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ResultsError(f"Cannot write to the results folder {out}: {error.strerror}. Choose another with --runs.") from error


def claim(folder: Path, spec: RunSpec) -> None:
    """Makes the folder this spec's, or sees that it is; a damaged `spec.json` in a folder that bears the spec's name is renewed.

    Raises:
        ResultsError: it holds the results of another spec.
    """
    path = folder / SPEC
    if path.exists():
        try:
            stored = read_spec(folder)
        except ResultsError as error:
            if folder.name != spec.digest:
                raise
            logger.warning("%s It is rewritten.", str(error).removesuffix(AGAIN).rstrip())
        else:
            if stored != spec.document():
                names = sorted(k for k in {*stored, *spec.document()} if stored.get(k) != spec.document().get(k))
                raise ResultsError(
                    f"{folder} holds the results of another spec (differs in {', '.join(names)}); "
                    "move it away, choose another --runs, or start over with --overwrite always."
                )
            return
    write_json(path, spec.document())


def clear(folder: Path) -> None:
    """Removes what a run writes beside its evidence, `spec.json` last, so that an interruption leaves a run and not debris."""
    for path in folder.glob("replies.*.jsonl"):
        path.unlink()
    if (folder / CONDITIONS).is_dir():
        shutil.rmtree(folder / CONDITIONS)
    for name in (METRICS, PREDICTIONS, PLAN, TASK, SPEC):
        (folder / name).unlink(missing_ok=True)


def read_run_json(path: Path, what: str = "") -> dict[str, Any]:
    """`documents.read_json` for the files of a run.

    Raises:
        ResultsError: the file is missing, unreadable, not a JSON object, or not what was written.
    """
    return documents.read_json(path, what=what, cure=AGAIN, error=ResultsError)


def read_spec(folder: Path) -> dict[str, Any]:
    """The document in a run's `spec.json`.

    Raises:
        ResultsError: it is missing or damaged.
    """
    document = read_run_json(folder / SPEC, "what was run")
    try:
        RunSpec.model_validate(document)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise ResultsError(f"Cannot read {folder / SPEC} (what was run): {where} is not as a run writes it. {AGAIN}") from error
    return document


def read_metrics(folder: Path) -> dict[str, Any]:
    """The document in a run's `metrics.json`, which must be of the run that `spec.json` tells.

    Raises:
        ResultsError: either is missing or damaged, or a figure cannot be one.
    """
    path = folder / METRICS
    document = read_run_json(path, "the run's figures")
    if problem := metrics_problem(document):
        raise ResultsError(f"Cannot read {path} (the run's figures): {problem}. {AGAIN}")
    if document["run"] != digest_of(read_spec(folder)):
        raise ResultsError(f"{path} and {SPEC} next to it are not of the same run. {AGAIN}")
    return _renewed(document)


def _renewed(document: dict[str, Any]) -> dict[str, Any]:
    """Figures with the methods' names in today's spelling: `sofa:sigma=0.3` was written for `sofa(sigma=0.3)` before."""
    methods = {stored_name(name): figures for name, figures in document["methods"].items()}
    if methods.keys() == document["methods"].keys():
        return document
    pairs = document.get("tests", {}).get("accuracy", {})
    tests = {stored_name(first): {stored_name(other): p for other, p in row.items()} for first, row in pairs.items()}
    return {**document, "methods": methods, "tests": {**document.get("tests", {}), "accuracy": tests}}
