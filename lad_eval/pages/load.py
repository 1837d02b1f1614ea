"""A finished run with all that a report can be made of, and in words what it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_eval.errors import UserError
from lad_eval.evidence import Evidence
from lad_eval.evidence_files import files_of
from lad_eval.methods import PLAIN, Condition, is_method, make_method
from lad_eval.pages.answers import Answers, answers_of
from lad_eval.pages.text import without_paths
from lad_eval.report.rows import rows_of
from lad_eval.run.asked import Asked
from lad_eval.run.folder import METRICS, PLAN, SPEC, ResultsError, condition_folder, read_json
from lad_eval.run.stored import StoredRun
from lad_eval.run.task_data import has_data, open_noted
from lad_eval.store import read_evidence

if TYPE_CHECKING:
    from lad_eval.tasks.task import Task


@dataclass(frozen=True)
class Looked:
    """Evidence under one condition: of the evaluated requests, and of the calibration; None where nothing was calibrated."""

    evaluated: Evidence
    calibration: Evidence | None


@dataclass(frozen=True)
class Material:
    """What there is of one run; `lacks` says for each absent part ("answers", "task") why.

    Attributes:
        metrics: `metrics.json`, `spec`: `spec.json`.
        answers: from `predictions.parquet`.
        looked: evidence by the label of the condition under which the model was asked, "" for the question and the model as they
            are; or why there is none.
        task: with its data, the same that the run asked; for captions and pictures.
    """

    metrics: Mapping[str, Any]
    spec: Mapping[str, Any]
    answers: Answers | None
    looked: Mapping[str, Looked | str]
    task: Task | None
    lacks: Mapping[str, str]

    @property
    def candidates(self) -> int:
        return int(self.metrics["candidates"])


def load_material(run: StoredRun, definitions: Mapping[str, Path] | None = None) -> Material:
    """Reads a run; a part that is missing or damaged is left out and named, only the figures must be there.

    Args:
        run: a finished run.
        definitions: YAML files by task name, for tasks that do not come with the package.

    Raises:
        ResultsError: the figures are not those of a run.
    """
    lacks: dict[str, str] = {}
    spec = read_json(run.path / SPEC)
    for key in ("model", "task", "candidates", "methods", "run"):
        if key not in run.metrics:
            raise ResultsError(f"{run.path / METRICS} lacks {key!r}: it is no file of figures of lad_eval.")
    if not all(isinstance(figure, dict) for figure in run.metrics["methods"].values()):
        raise ResultsError(f"{run.path / METRICS} is damaged; the command that began the run writes it anew.")
    try:
        rows_of(run.metrics)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ResultsError(f"{run.path / METRICS} is damaged; the command that began the run writes it anew.") from error
    answers = task = None
    try:
        answers = answers_of(run.predictions(), int(run.metrics["candidates"]))
    except UserError as error:
        lacks["answers"] = without_paths(str(error))
    try:
        task = _task(run.path, spec, definitions or {})
    except UserError as error:
        lacks["task"] = without_paths(str(error))
    looked = {condition.label: _looked(run.path, condition) for condition in _conditions(run.metrics["methods"])}
    return Material(run.metrics, spec, answers, looked, task, lacks)


def _conditions(methods: Mapping[str, Any]) -> list[Condition]:
    """The plain one, and those under which methods that calibrate were asked."""
    calibrated = [name for name, figure in methods.items() if figure.get("calibration_passes") and is_method(name)]
    return list(dict.fromkeys([PLAIN, *(make_method(name).condition for name in calibrated)]))


def _looked(run: Path, condition: Condition) -> Looked | str:
    folder = condition_folder(run, condition)
    if not files_of(folder):
        how = f"under {condition.label}" if condition.label else "of the question as it is"
        return f"This run's folder holds no evidence {how}."
    try:
        evidence = read_evidence(folder)
        asked = Asked.from_document(read_json(folder / PLAN))
        calibration = evidence.select_keys(list(asked.calibration)) if asked.calibration else None
        return Looked(evidence.select_keys(list(asked.evaluated)), calibration)
    except UserError as error:
        return without_paths(str(error))


def _task(run: Path, spec: Mapping[str, Any], definitions: Mapping[str, Path]) -> Task:
    """The task that the run asked: from the file named, else from the data that the run noted, else the bundled one of its name.

    Raises:
        UserError: it cannot be opened, or its data is not what the run saw.
    """
    from lad_eval.tasks.registry import load_task

    name = spec["task"]
    task = open_noted(run) if name not in definitions and has_data(run) else load_task(definitions.get(name, name))
    # Captions and pictures rest on the data alone; orders, answers and calibration are stored.
    if spec.get("digests", {}).get("data") != task.fingerprint.get("data"):
        raise ResultsError(f"The data of {name} is not what the run saw: captions and pictures would be those of other samples.")
    return task


def definitions_of(names: Sequence[str]) -> dict[str, Path]:
    """YAML files by task name, from those names that `resolve` leaves as paths."""
    return {Path(name).stem: Path(name) for name in names if name.endswith((".yaml", ".yml"))}
