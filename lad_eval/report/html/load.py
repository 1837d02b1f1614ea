"""A finished run with all that a report can be made of, and in words what it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence import Evidence
from lad_eval.report.html.answers import Answers, answers_of
from lad_eval.run.asked import Asked
from lad_eval.run.folder import METRICS, PLAN, SPEC, ResultsError, read_json
from lad_eval.run.stored import StoredRun
from lad_eval.store import read_evidence

if TYPE_CHECKING:
    from lad_eval.tasks.task import Task


@dataclass(frozen=True)
class Material:
    """What there is of one run; `lacks` says for each absent part ("answers", "evidence", "calibration", "task") why.

    Attributes:
        metrics: `metrics.json`, `spec`: `spec.json`.
        answers: from `predictions.parquet`.
        evidence: all rows, `calibration`: those of the calibration passes.
        task: with its data, the same that the run asked; for captions and pictures.
    """

    metrics: Mapping[str, Any]
    spec: Mapping[str, Any]
    answers: Answers | None
    evidence: Evidence | None
    calibration: Evidence | None
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
    answers = evidence = calibration = task = None
    try:
        answers = answers_of(run.predictions(), int(run.metrics["candidates"]))
    except UserError as error:
        lacks["answers"] = _without_folder(error, run.path)
    try:
        evidence = read_evidence(run.path)
    except EvidenceError as error:
        lacks["evidence"] = _without_folder(error, run.path)
    if evidence is None:
        lacks["calibration"] = lacks["evidence"]
    else:
        try:
            calibration = _calibration(evidence, run.path)
        except UserError as error:
            lacks["calibration"] = _without_folder(error, run.path)
    try:
        task = _task(spec, definitions or {})
    except UserError as error:
        lacks["task"] = _without_folder(error, run.path)
    return Material(run.metrics, spec, answers, evidence, calibration, task, lacks)


def _calibration(evidence: Evidence, folder: Path) -> Evidence:
    asked = Asked.from_document(read_json(folder / PLAN))
    if not asked.calibration:
        raise EvidenceError("This run asked no calibration samples; none of its methods calibrates.")
    return evidence.select_keys(list(asked.calibration))


def _task(spec: Mapping[str, Any], definitions: Mapping[str, Path]) -> Task:
    """The task that the run asked.

    Raises:
        UserError: it cannot be opened, or its data is not what the run saw.
    """
    from lad_eval.tasks.registry import load_task

    name = spec["task"]
    task = load_task(definitions.get(name, name))
    # Captions and pictures rest on the data alone; orders, answers and calibration are stored.
    if spec.get("digests", {}).get("data") != task.fingerprint.get("data"):
        raise ResultsError(f"The data of {name} is not what the run saw: captions and pictures would be those of other samples.")
    return task


def _without_folder(error: UserError, folder: Path) -> str:
    """The error's text without paths: a report is read elsewhere."""
    text = " ".join(str(error).split())
    return text.replace(f"{folder}/", "").replace(str(folder), "the run's folder")


def definitions_of(names: Sequence[str]) -> dict[str, Path]:
    """YAML files by task name, from those names that `resolve` leaves as paths."""
    return {Path(name).stem: Path(name) for name in names if name.endswith((".yaml", ".yml"))}
