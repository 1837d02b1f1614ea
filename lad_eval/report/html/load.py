"""Loads a finished run for the report, with the reasons for what it lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lad_eval.errors import UserError
from lad_eval.evidence.files import files_of
from lad_eval.evidence.store import read_evidence
from lad_eval.evidence.table import Evidence, Floats
from lad_eval.methods import PLAIN, Condition, is_method, make_method
from lad_eval.metrics import Grid
from lad_eval.models.source import display_name
from lad_eval.report.html.patches import PatchMaps, patch_maps
from lad_eval.report.html.text import without_paths
from lad_eval.run.decide import PlanIndex
from lad_eval.run.folder.files import SPEC, ResultsError, condition_folder, read_spec
from lad_eval.run.folder.stored import StoredRun, finished_runs, load_run, none_in, predictions_in
from lad_eval.run.folder.task_data import has_data, open_noted
from lad_eval.tasks.registry import tasks_in_order

if TYPE_CHECKING:
    import pandas as pd

    from lad_eval.tasks.task import Task


@dataclass(frozen=True)
class MethodAnswers:
    """The answers of every method of a run to the same questions.

    Attributes:
        grids: by method; the S samples in the order of the run.
        probability: by method Float[S, T, N] of the displayed positions, NaN in rows without one; without methods that
            answer in text.
    """

    grids: dict[str, Grid]
    probability: dict[str, Floats]

    @property
    def methods(self) -> list[str]:
        return list(self.grids)

    @property
    def shown(self) -> Grid:
        """Samples, orders and right images, which all methods share."""
        return next(iter(self.grids.values()))

    @property
    def sample_id(self) -> list[str]:
        names: list[str] = self.shown.sample_id.tolist()
        return names

    @property
    def n_candidates(self) -> int:
        return self.shown.n_candidates


def answers_of(predictions: pd.DataFrame, candidates: int) -> MethodAnswers:
    """The rows of `predictions.parquet` as arrays; methods with other rows than the first are left out.

    Args:
        predictions: of `StoredRun.predictions`.
        candidates: N of the run.

    Raises:
        PredictionsError: the first method lacks an order of a sample.
    """
    tables = {str(name): rows for name, rows in predictions.groupby("method", sort=False)}
    first = next(iter(tables.values()))
    ids = list(dict.fromkeys(first["sample_id"]))
    cells = set(zip(first["sample_id"], first["permutation"], strict=True))
    grids: dict[str, Grid] = {}
    probability: dict[str, Floats] = {}
    for name, rows in tables.items():
        if len(rows) != len(first) or set(zip(rows["sample_id"], rows["permutation"], strict=True)) != cells:
            continue
        answers = predictions_in(rows)
        grids[name] = answers.grid.only(ids)
        if (known := _probability(rows["log_proba"].tolist(), candidates)) is not None:
            place = {sample: row for row, sample in enumerate(answers.grid.sample_id.tolist())}
            probability[name] = known[answers.cells[[place[sample] for sample in ids]]]
    return MethodAnswers(grids, probability)


def _probability(rows: list[object], candidates: int) -> Floats | None:
    """Float[n, N] from lists of log-probabilities, NaN if a row has none; None if no row has any."""
    probabilities = np.full((len(rows), candidates), np.nan)
    for place, row in enumerate(rows):
        values = np.asarray(row if row is not None else [], dtype=np.float64).ravel()
        if values.shape == (candidates,) and not np.isnan(values).any():
            probabilities[place] = np.exp(values)
    return None if np.isnan(probabilities).all() else probabilities


@dataclass(frozen=True)
class MethodEvidence:
    """Evidence under one condition: of the evaluated requests, and of the calibration requests; None if nothing was "
    "calibrated.
    """

    evaluated: Evidence
    calibration: Evidence | None


@dataclass(frozen=True)
class Material:
    """The data of one run; `lacks` has the reason for each missing part ("answers", "task").

    Attributes:
        metrics: `metrics.json`, `spec`: `spec.json`.
        answers: from `predictions.parquet`.
        evidence_of: evidence by the label of its condition, "" for the unchanged prompt and model; or why there is
            none.
        task: with the run's data, for captions and images.
        patches: token maps; None if the run has none.
    """

    metrics: Mapping[str, Any]
    spec: Mapping[str, Any]
    answers: MethodAnswers | None
    evidence_of: Mapping[str, MethodEvidence | str]
    task: Task | None
    lacks: Mapping[str, str]
    patches: PatchMaps | None = None

    @property
    def candidates(self) -> int:
        return int(self.metrics["candidates"])


def load_material(run: StoredRun, definitions: Mapping[str, Path] | None = None) -> Material:
    """Reads a run; parts that are missing or damaged are left out and named, only `metrics.json` is required.

    Args:
        run: a finished run.
        definitions: YAML files by task name, for tasks that do not come with the package.

    Raises:
        ResultsError: the metrics are not those of a run.
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
    evidence_of = {
        condition.label: _evidence_of(run.path, condition, digest) for condition in _conditions(run.metrics["methods"])
    }
    patches = patch_maps(run.path, run.metrics["methods"], digest)
    return Material(run.metrics, spec, answers, evidence_of, task, lacks, patches)


def _conditions(methods: Mapping[str, Any]) -> list[Condition]:
    """The plain condition, and those of the methods that calibrate."""
    calibrated = [name for name, figure in methods.items() if figure.get("calibration_passes") and is_method(name)]
    return list(dict.fromkeys([PLAIN, *(make_method(name).condition for name in calibrated)]))


def _evidence_of(run: Path, condition: Condition, run_digest: str) -> MethodEvidence | str:
    folder = condition_folder(run, condition)
    if not files_of(folder):
        how = f"under {condition.label}" if condition.label else "for the unchanged prompt and model"
        return f"This run's folder has no evidence {how}."
    try:
        evidence = read_evidence(folder)
        plan_index = PlanIndex.read(folder, run_digest)
        calibration = evidence.select_keys(list(plan_index.calibration)) if plan_index.calibration else None
        return MethodEvidence(evidence.select_keys(list(plan_index.evaluated)), calibration)
    except UserError as error:
        return without_paths(str(error))


def _task(run: Path, spec: Mapping[str, Any], definitions: Mapping[str, Path]) -> Task:
    """The task of the run: from the named file, else from the data that the run recorded, else the bundled task of its name.

    Raises:
        UserError: it cannot be opened, or its data is not the run's.
    """
    from lad_eval.tasks.registry import load_task

    name = spec["task"]
    task = open_noted(run) if name not in definitions and has_data(run) else load_task(definitions.get(name, name))
    # Captions and images depend on the data alone; orders, answers and calibration are stored.
    if spec.get("digests", {}).get("data") != task.fingerprint.get("data"):
        raise ResultsError(f"The data of {name} is not the run's: captions and images would be those of other samples.")
    return task


def definitions_of(names: Sequence[str]) -> dict[str, Path]:
    """YAML files by task name, for those names that `resolve` returns as paths."""
    return {Path(name).stem: Path(name) for name in names if name.endswith((".yaml", ".yml"))}


def choose(
    folders: Sequence[Path], model: str | None = None, tasks: Sequence[Sequence[str]] | None = None, *, studies: bool = True
) -> list[StoredRun]:
    """The finished runs at or below the folders, each once.

    If tasks are named, the runs are sorted by their order. Otherwise they are sorted by folder, and within a folder by model name
    and by the order of the tasks (`tasks_in_order`).

    Args:
        folders: run folders, or folders above them.
        model: only the runs of this model, by the name passed to `run`.
        tasks: only the runs on these, names or paths of YAML files: one list per named task or group, whose members with a run
            are taken.
        studies: include the runs of studies; a run's own folder is always included.

    Raises:
        UserError: a folder holds no finished run, or none of the model, or none of any member of one of the lists.
    """
    runs = _below(folders, studies=studies)
    if model is not None:
        shown = display_name(model)
        there = sorted({str(run.metrics.get("model")) for run in runs})
        runs = [run for run in runs if run.metrics.get("model") == shown]
        if not runs:
            raise ResultsError(f"There is no finished run of {shown} in {_named(folders)}, only of {', '.join(there)}.")
    if tasks is None:
        return runs
    lists = [[Path(task).stem if task.endswith((".yaml", ".yml")) else task for task in members] for members in tasks]
    ran = {run.metrics.get("task") for run in runs}
    if missing := [" or ".join(members) for members in lists if ran.isdisjoint(members)]:
        whose = "" if model is None else f" of {display_name(model)}"
        raise ResultsError(
            f"There is no finished run{whose} on {', '.join(missing)} in {_named(folders)}; `lad-eval run --tasks` makes one."
        )
    names = dict.fromkeys(name for members in lists for name in members)
    return [run for name in names for run in runs if run.metrics.get("task") == name]


def _below(folders: Sequence[Path], *, studies: bool) -> list[StoredRun]:
    runs: dict[Path, StoredRun] = {}
    for folder in folders:
        here = [load_run(folder)] if (folder / SPEC).is_file() else _ordered(finished_runs(folder, studies=studies))
        if not here:
            raise UserError(none_in(folder, studies=studies))
        runs |= {run.path.resolve(): run for run in here}
    return list(runs.values())


def _ordered(stored: Iterable[StoredRun]) -> list[StoredRun]:
    runs = list(stored)
    tasks = tasks_in_order({str(run.metrics.get("task")) for run in runs})
    return sorted(runs, key=lambda run: (str(run.metrics.get("model")), tasks.index(str(run.metrics.get("task")))))


def _named(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders))
