"""A method of lad_eval inside another harness: calibrated on first use, then run request by request."""

from __future__ import annotations

import hashlib
import json
import logging
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lad_eval.attention.interventions import LEARNED, Intervention
from lad_eval.errors import UserError
from lad_eval.evidence.store import EvidenceStore
from lad_eval.evidence.table import Evidence
from lad_eval.files.atomic import write_atomically
from lad_eval.methods import Method, make_method
from lad_eval.models.base import VLM
from lad_eval.run.collect import calibrate_intervention, check_options, fingerprint_under, run_requests, under
from lad_eval.run.distributed import DistributedContext
from lad_eval.run.folder.files import claim, condition_folder, ensure_writable, folder_of, slug
from lad_eval.run.folder.spec import RunSpec
from lad_eval.run.progress import progress
from lad_eval.tasks.plan import plan
from lad_eval.tasks.request import Request
from lad_eval.tasks.task import Task


class StoredEvidence:
    """The evidence of a model on a task: every request is run once, however many methods, calls or processes need it.

    With several processes, each writes its own file. Get one from `stored_evidence`.

    Args:
        task: the task that the requests belong to.
        fingerprint: of the model under the intervention.
        folder: where it is stored.
        intervention: the one under which the model is run.
    """

    def __init__(self, task: Task, fingerprint: Mapping[str, Any], folder: Path, intervention: Intervention | None) -> None:
        context = DistributedContext.from_environment()
        self.intervention = intervention
        self._is_main_process = context.is_main_process
        self._store = EvidenceStore(folder, fingerprint, task=task.fingerprint, rank=context.store_rank)
        self._store.open()
        weakref.finalize(self, self._store.close)
        self._parts: list[Evidence] = []
        self._where: dict[str, tuple[int, int]] = {}
        if self._store.keys():
            self._remember(self._store.load())

    def of(self, model: VLM, requests: Sequence[Request], label: str, *, show_progress: bool = True) -> Evidence:
        """One row per request, in the order of the requests; missing ones are run and stored, batch by batch.

        Args:
            model: the model that the evidence belongs to.
            requests: at least one.
            label: what the progress bar calls it.
            show_progress: on stderr, by the main process.

        Raises:
            UserError: an image cannot be read, or memory or disk space runs out.
        """
        missing = list({r.key: r for r in requests if r.key not in self._where}.values())
        if missing:
            shown = show_progress and self._is_main_process and len(missing) > 1
            with progress(label, len(missing), shown=shown) as advance, under(model, self.intervention):
                for count in run_requests(model, missing, self._keep):
                    advance(count)
        return self._rows([request.key for request in requests])

    def _keep(self, part: Evidence) -> None:
        self._store.append(part)
        self._remember(part)

    def _remember(self, part: Evidence) -> None:
        self._where.update({key: (len(self._parts), row) for row, key in enumerate(part.key.tolist())})
        self._parts.append(part)

    def _rows(self, keys: Sequence[str]) -> Evidence:
        wanted: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            wanted.setdefault(self._where[key][0], []).append(place)
        rows = Evidence.concatenate([self._parts[n].select([self._where[keys[p]][1] for p in at]) for n, at in wanted.items()])
        order = np.argsort([place for at in wanted.values() for place in at])
        return rows.select(order)


_OPEN: weakref.WeakValueDictionary[Path, StoredEvidence] = weakref.WeakValueDictionary()


def stored_evidence(model: VLM, task: Task, folder: Path, intervention: Intervention | None = None) -> StoredEvidence:
    """The evidence of a model on a task in a folder; methods in one process share it.

    Raises:
        UserError: another process uses the folder, it holds another run, or the model's attention cannot be recorded.
    """
    stored = _OPEN.get(folder)
    if stored is None:
        stored = _OPEN[folder] = StoredEvidence(task, fingerprint_under(model, intervention), folder, intervention)
    return stored


def run_folder(model: VLM, task: Task, store: Path) -> Path:
    """`<store>/<model>/<task>/<hash>`, the folder of the same run by `lad-eval run` without a limit; created if it is missing.

    Raises:
        UserError: the folder cannot be written to, or it holds another run.
    """
    ensure_writable(store)
    spec = RunSpec.of(model.name, model.fingerprint, task, None)
    folder = folder_of(store, spec).resolve()
    claim(folder, spec)
    return folder


logger = logging.getLogger(__name__)


class CalibratedMethod:
    """One method on one model and one task, with the same answers as in `lad-eval run`.

    The calibration samples are run before the first answer. Evidence and learned state are stored in `folder`, which belongs to
    this model, task, data and intervention only: a second process, and every other method, runs only what is missing.

    Attributes:
        folder: of evidence and learned state: the run's, or that of the condition in it.

    Args:
        model: the model that answers.
        task: the source of the calibration samples; requests passed to `answer` must belong to it.
        method: a method, or its name; not yet calibrated.
        store: the folder above all runs, such as `results/runs`.
        show_progress: on stderr.

    Raises:
        UserError: the method does not exist, does not decide from evidence for the unchanged question, cannot decide between
            the task's options, or the folder cannot be used.
        ValueError: the method is calibrated already.
    """

    def __init__(self, model: VLM, task: Task, method: str | Method, store: str | Path, *, show_progress: bool = True) -> None:
        self.method = make_method(method) if isinstance(method, str) else method
        check_answers_here(self.method, interventions=True)
        if self.method.learner.calibrates and self.method.learner.is_calibrated:
            raise ValueError(
                f"{self.method.name} is calibrated already, perhaps on another task; give each task a method of its own"
            )
        check_options(task, [self.method])
        self.task = task
        self.show_progress = show_progress
        self._model = model
        self.folder = condition_folder(run_folder(model, task, Path(store)), self.method.condition)
        if not self.method.condition.learns:
            _ = self._evidence  # a folder that is in use is reported before anything is run

    @cached_property
    def _evidence(self) -> StoredEvidence:
        return stored_evidence(self._model, self.task, self.folder, self._intervention)

    @cached_property
    def _intervention(self) -> Intervention | None:
        """The intervention of the method's condition, calibrated: from stored state, else from calibration samples."""
        intervention = self.method.condition.intervention
        if intervention is None or intervention.is_ready:
            return intervention
        requests = intervention_requests(self.task, intervention)
        return learned_intervention(self._model, intervention, requests, self.folder, self.task.name)

    @property
    def state_path(self) -> Path:
        """The file of the learned state; its name holds a digest of the parameters."""
        learner = self.method.learner
        parameters = json.dumps([type(learner).__name__, learner.get_params()], sort_keys=True, default=str)
        return (
            self.folder
            / "calibration"
            / f"{slug(learner.name)}-{hashlib.sha256(parameters.encode()).hexdigest()[:12]}.safetensors"
        )

    def calibrate(self) -> None:
        """Calibrates now rather than before the first answer; from the stored state, if there is one.

        Raises:
            UserError: the data has too few calibration samples, or an image cannot be read.
        """
        _ = self._ready

    def answer(self, requests: Sequence[Request]) -> list[int]:
        """The 0-based displayed position that answers each request.

        Raises:
            UserError: the data has too few calibration samples, an image cannot be read, or a request's sample was calibrated on.
        """
        if not requests:
            return []
        method = self._ready
        orders = [self._orders(request) for request in requests]
        each_once = list({shown.key: shown for of_one in orders for shown in of_one}.values())
        evidence = self._evidence.of(self._model, each_once, f"{self.task.name}, {method.name}", show_progress=self.show_progress)
        row = {shown.key: i for i, shown in enumerate(each_once)}
        index = np.asarray([[row[shown.key] for shown in of_one] for of_one in orders], dtype=np.int64)
        return [int(position) for position in method.decide(evidence, index).position]

    @cached_property
    def _ready(self) -> Method:
        """The method, calibrated from stored state, else from stored evidence, else by running the model."""
        method, learner = self.method, self.method.learner
        if not learner.calibrates:
            return method
        if self.state_path.is_file():
            try:
                loaded = type(learner).load(self.state_path)
                return method.with_learner(loaded)
            except UserError as error:
                logger.warning("%s It is learned again.", error)
        # The whole plan, since the calibration samples depend on all evaluated samples.
        planned = plan(self.task, calibration=True, distinct=method.condition.learns)
        for note in planned.notes:
            logger.warning("%s: %s", self.task.name, note)
        label = f"{self.task.name}, calibration of {learner.name}"
        learned_from = planned.calibration_requests()
        learner.calibrate(self._evidence.of(self._model, learned_from, label, show_progress=self.show_progress))
        write_atomically(self.state_path, learner.save)
        return method

    def _orders(self, request: Request) -> list[Request]:
        """The requests that an answer needs, the request itself first, then other displayed orders of its images if required."""
        return [request.reordered(order) for order in self.method.displayed_orders(request.permutation)]


def intervention_requests(task: Task, intervention: Intervention) -> tuple[Request, ...]:
    """The requests that an intervention learns from on a task: calibration samples without any evaluated picture.

    Raises:
        DataError: there are too few.
    """
    samples = intervention.calibration_samples_wanted(task.candidates)
    return plan(task, calibration=True, distinct=True, intervention_samples=samples).intervention_requests


def learned_intervention(
    model: VLM, intervention: Intervention, requests: Sequence[Request], folder: Path, label: str
) -> Intervention:
    """The intervention calibrated on requests; notes on its learned state are logged.

    Args:
        model: to learn from.
        intervention: that learns.
        requests: to calibrate on.
        folder: of the learned state, which is reused if it is there.
        label: of the requests, for the log.

    Raises:
        UserError: the model cannot be calibrated on, or several processes would each calibrate it.
    """
    if DistributedContext.from_environment().size > 1 and not any(folder.glob(LEARNED)):
        raise UserError(
            f"{intervention.label} must be calibrated, which several processes would each do separately: run it once with "
            f"one process, such as with --limit 1; the learned state is stored in {folder}."
        )
    learned = calibrate_intervention(model, intervention, requests, folder=folder)
    assert learned is not None  # there is one to calibrate
    samples = len({request.sample_id for request in requests})
    for note in (*intervention.calibration_notes(samples), *learned.learned_notes):
        logger.warning("%s: %s", label, note)
    return learned


def check_answers_here(method: Method, *, interventions: bool = False) -> None:
    """Refuses methods that do not decide from evidence for the unchanged question.

    Args:
        method: to be run.
        interventions: whether interventions are allowed.

    Raises:
        UserError: the method reads replies or probes, decides all questions together, or changes the prompt or the model.
    """
    if "replies" in method.needs:
        raise UserError(f"{method.name} reads the model's replies rather than evidence; use `lad-eval run`.")
    if method.probes or method.calibration_probes:
        raise UserError(f"{method.name} reads probes, questions with replaced content, which run with `lad-eval run` only.")
    if method.transductive:
        raise UserError(
            f"{method.name} decides all questions of a run together, and a harness hands over a few; use `lad-eval run`."
        )
    if method.condition.prompt_variants or (method.condition.intervention is not None and not interventions):
        raise UserError(
            f"{method.condition.label} changes the prompt or the model, which the harness controls; use `lad-eval run`."
        )
