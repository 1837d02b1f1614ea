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
from lad_eval.run.asked import Asked
from lad_eval.run.folder import ResultsError, condition_folder, read_spec
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
    spec = read_spec(run.path)
    answers = task = None
    try:
        answers = answers_of(run.predictions(), int(run.metrics["candidates"]))
    except UserError as error:
        lacks["answers"] = without_paths(str(error))
    try:
        task = _task(run.path, spec, definitions or {})
    except UserError as error:
        lacks["task"] = without_paths(str(error))
    digest = str(run.metrics["run"])
    looked = {condition.label: _looked(run.path, condition, digest) for condition in _conditions(run.metrics["methods"])}
    return Material(run.metrics, spec, answers, looked, task, lacks)


def _conditions(methods: Mapping[str, Any]) -> list[Condition]:
    """The plain one, and those under which methods that calibrate were asked."""
    calibrated = [name for name, figure in methods.items() if figure.get("calibration_passes") and is_method(name)]
    return list(dict.fromkeys([PLAIN, *(make_method(name).condition for name in calibrated)]))


def _looked(run: Path, condition: Condition, run_digest: str) -> Looked | str:
    folder = condition_folder(run, condition)
    if not files_of(folder):
        how = f"under {condition.label}" if condition.label else "of the question as it is"
        return f"This run's folder holds no evidence {how}."
    try:
        evidence = read_evidence(folder)
        asked = Asked.read(folder, run_digest)
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
