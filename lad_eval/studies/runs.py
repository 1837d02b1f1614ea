"""The runs of a study: collected with a model or taken from the finished ones, and read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from lad_eval.errors import DataError, UserError
from lad_eval.evidence.store import read_evidence
from lad_eval.evidence.table import Evidence
from lad_eval.methods import Method, resolve_methods
from lad_eval.metrics import Predictions
from lad_eval.models.base import VLM
from lad_eval.models.registry import check_model
from lad_eval.run.condition_runs import condition_runs_of
from lad_eval.run.decide import PlanIndex
from lad_eval.run.distributed import DistributedContext
from lad_eval.run.execute import load, run_task
from lad_eval.run.folder import files
from lad_eval.run.folder.spec import RunSpec
from lad_eval.run.folder.stored import StoredRun, finished_runs, load_run
from lad_eval.run.progress import Overall, Portion
from lad_eval.run.settings import Settings
from lad_eval.studies.requirement import Requirement
from lad_eval.tasks.task import Task

logger = logging.getLogger(__name__)


class StudyRun:
    """One finished run: its evidence, and the predictions that were or can be decided from it."""

    def __init__(self, folder: Path) -> None:
        self.run: StoredRun = load_run(folder)

    @cached_property
    def evidence(self) -> Evidence:
        """Evidence for the unchanged prompt and model."""
        return read_evidence(self.run.path)

    @cached_property
    def plan_index(self) -> PlanIndex:
        return PlanIndex.read(self.run.path, str(self.run.metrics["run"]))

    @cached_property
    def evaluated(self) -> Evidence:
        """Rows of the evaluated requests, S samples x T orders."""
        return self.evidence.select_keys(self.plan_index.evaluated)

    @cached_property
    def calibration(self) -> Evidence:
        """Rows of the calibration requests."""
        return self.evidence.select_keys(self.plan_index.calibration)

    def predictions(self, method: str) -> Predictions:
        """The predictions of a method by name, as the run stored them."""
        return self.run.predictions_of(method)

    def decide(self, method: Method) -> Predictions:
        """The predictions of any method that takes one pass per question, calibrated on this run's calibration samples."""
        if method.calibrates:
            method.calibrate(self.calibration)
        answers = method.decide(self.evaluated, np.arange(len(self.evaluated))[:, None])
        return Predictions.of(self.evaluated, answers.position, self.plan_index.permutation_index)

    @property
    def notes(self) -> tuple[str, ...]:
        """The data source's notes: rows left out, orders that were not permuted."""
        return tuple(self.run.metrics.get("notes", ()))

    def passes(self, method: str) -> str:
        """Forward passes per query of a method run alone, as tables show them; a dash where they are unknown."""
        count = self.run.metrics["methods"][method]["forward_passes"]
        return "–" if count is None else f"{count:.3g}"


class RunIndex:
    """The runs of a study by requirement; each is read when it is first used.

    Args:
        folders: run folder by the requirement's label.
        reasons: by label, why there is no run.
        seed: of every bootstrap and every random choice.
    """

    def __init__(self, folders: Mapping[str, Path], reasons: Mapping[str, str] | None = None, *, seed: int = 42) -> None:
        self.seed = seed
        self._folders = dict(folders)
        self._reasons = dict(reasons or {})
        self._runs: dict[str, StudyRun] = {}

    def has(self, requirement: Requirement) -> bool:
        return requirement.label in self._folders

    def __getitem__(self, requirement: Requirement) -> StudyRun:
        if requirement.label not in self._runs:
            self._runs[requirement.label] = StudyRun(self._folders[requirement.label])
        return self._runs[requirement.label]

    def why_missing(self, requirements: Sequence[Requirement]) -> str:
        """Why these requirements have no run, and what to do about it."""
        labels = [requirement.label for requirement in requirements]
        return self._reasons.get(labels[0], f"there is no finished run of {', '.join(labels)}; run without --stored.")


Measurement = Callable[[VLM, RunIndex], None]


def collect_runs(
    requirements: Sequence[Requirement],
    settings: Settings,
    folder: Path,
    *,
    strict: bool = True,
    before: Measurement | None = None,
    after: Measurement | None = None,
) -> RunIndex | None:
    """Runs every requirement as `lad-eval run` would: resumes, distributes the work over processes, keeps the evidence.

    Args:
        requirements: merged.
        settings: the model, the limit, and where runs are stored; tasks and methods are those of the requirements.
        folder: of the study, where the measurements may write.
        strict: missing data is an error; otherwise the run is left out, and the index says why.
        before: measures the model before anything is run. Both measurements take place in the main process only, and write what
            they measure into `folder`.
        after: measures the model after everything is run.

    Returns:
        None in every process but the main one.

    Raises:
        UserError: as `run_task`; or a folder cannot be written to.
    """
    context = DistributedContext.from_environment()
    if not context.is_main_process:
        logging.getLogger("lad_eval").setLevel(logging.WARNING)
    with context.joined():
        with context.barrier():
            check_model(settings.model, adapter=settings.adapter, revision=settings.revision)
            if context.is_main_process:
                files.ensure_writable(settings.out)
                files.ensure_writable(folder)
        context.check_same(settings.shared)
        context.check_shared(settings.out)
        with context.barrier():
            tasks, reasons = _load_tasks(requirements, strict=strict)
        model = load(settings, context)
        with context.barrier():
            if before is not None and context.is_main_process:
                before(model, RunIndex({}, seed=settings.seed))
        shown = context.is_main_process and not settings.quiet
        overall = Overall(_portions(tasks, settings, context), f"study {settings.study}", shown=shown)
        folders = {}
        for requirement, task in tasks:
            run_task(model, task, resolve_methods(requirement.methods), settings, context, overall)
            spec = RunSpec.of(model.name, model.fingerprint, task, settings.samples_of(task))
            folders[requirement.label] = files.folder_of(settings.out, spec)
        runs = RunIndex(folders, reasons, seed=settings.seed)
        with context.barrier():
            if after is not None and context.is_main_process:
                after(model, runs)
    return runs if context.is_main_process else None


def _load_tasks(requirements: Sequence[Requirement], *, strict: bool) -> tuple[list[tuple[Requirement, Task]], dict[str, str]]:
    """The tasks whose data is available, and by label why the others are left out."""
    tasks: list[tuple[Requirement, Task]] = []
    reasons: dict[str, str] = {}
    for requirement in requirements:
        task = _task_or_error(requirement)
        if isinstance(task, Task):
            tasks.append((requirement, task))
        elif strict and not requirement.optional:
            raise task
        else:
            reasons[requirement.label] = str(task)
            logger.warning("%s is skipped: %s", requirement.label, task)
    return tasks, reasons


def _task_or_error(requirement: Requirement) -> Task | DataError:
    try:
        return requirement.load_task()
    except DataError as error:
        return error


def _portions(tasks: Sequence[tuple[Requirement, Task]], settings: Settings, context: DistributedContext) -> Iterator[Portion]:
    """The requests of all runs, for the progress of the whole; each run plans its own again."""
    for requirement, task in tasks:
        for condition_run in condition_runs_of(
            task, resolve_methods(requirement.methods), settings.out, settings.samples_of(task)
        ):
            yield from condition_run.portions(context.size)


def stored_runs(requirements: Sequence[Requirement], settings: Settings) -> RunIndex:
    """The required runs among the finished ones of the model, under the same limit; loads no model.

    Raises:
        UserError: several runs fit one requirement.
    """
    folders: dict[str, Path] = {}
    for run in finished_runs(settings.out):
        label = str(run.metrics["task"])
        if run.metrics["model"] != settings.model_name or run.metrics["limit"] != settings.limit:
            continue
        if not any(required.label == label and set(required.methods) <= set(run.methods) for required in requirements):
            continue
        if label in folders:
            raise UserError(
                f"Several runs of {settings.model} on {label} could be meant, e.g. {folders[label]} and {run.path}; "
                "run without --stored, or move one away."
            )
        folders[label] = run.path
    return RunIndex(folders, seed=settings.seed)
