"""A method of ours behind another harness: calibrated on first use, then asked request by request."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from lad_eval.errors import UserError
from lad_eval.methods import PLAIN, Method, OverViews, make_method
from lad_eval.models.base import VLM
from lad_eval.plugins.kept import kept_evidence
from lad_eval.run.folder import slug, write_atomically
from lad_eval.tasks.plan import RANDOM_ORDERS, plan
from lad_eval.tasks.request import Request
from lad_eval.tasks.task import Task

logger = logging.getLogger(__name__)


class CalibratedMethod:
    """One method on one model and one task; answers as `lad-eval run` gives them.

    The calibration samples are asked before the first answer. Evidence and learned state stay in `folder`, which belongs to
    this model, task and data alone: a second process, and every other method, asks only what is missing.

    Args:
        model: who answers.
        task: where its calibration samples come from; requests given to `answer` must be of it.
        method: its name, or one with parameters of its own, not yet calibrated.
        store: the folder above all runs, such as `results/runs`.
        show_progress: on stderr.

    Raises:
        UserError: the method does not exist, does not decide from evidence of the question as it is, or the folder cannot be
            used.
    """

    def __init__(self, model: VLM, task: Task, method: str | Method, store: str | Path, *, show_progress: bool = True) -> None:
        self.method = make_method(method) if isinstance(method, str) else method
        check_answers_here(self.method)
        self.task = task
        self.show_progress = show_progress
        self._model = model
        self._kept = kept_evidence(model, task, Path(store))

    @property
    def folder(self) -> Path:
        """Where evidence and learned state are kept."""
        return self._kept.folder

    @property
    def state_path(self) -> Path:
        """The file of the learned state; its name holds a digest of the parameters."""
        learner = self._learner
        told = json.dumps([type(learner).__name__, learner.get_params()], sort_keys=True, default=str)
        return self.folder / "calibration" / f"{slug(learner.name)}-{hashlib.sha256(told.encode()).hexdigest()[:12]}.safetensors"

    def calibrate(self) -> None:
        """Learns now, and not before the first answer only; from what is stored, if it was learned before.

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
        views = [self._views(request) for request in requests]
        each_once = list({view.key: view for of_one in views for view in of_one}.values())
        evidence = self._kept.of(self._model, each_once, f"{self.task.name}, {method.name}", show_progress=self.show_progress)
        row = {view.key: i for i, view in enumerate(each_once)}
        index = np.asarray([[row[view.key] for view in of_one] for of_one in views], dtype=np.int64)
        if isinstance(method, OverViews):
            scores = method.predict_over_views(evidence, index)
        else:
            scores = method.predict_log_proba(evidence)[index[:, 0]]
        return [int(position) for position in scores.argmax(axis=1)]

    @property
    def _learner(self) -> Method:
        """What learns: the method, or the decision that it makes of each of several orders."""
        return self.method.decision if isinstance(self.method, OverViews) else self.method

    @cached_property
    def _ready(self) -> Method:
        """The method, calibrated from the stored state, else from stored evidence, else by asking."""
        method, learner = self.method, self._learner
        if not learner.calibrates or learner.is_calibrated:
            return method
        if self.state_path.is_file():
            try:
                loaded = type(learner).load(self.state_path)
                return method.over(loaded) if isinstance(method, OverViews) else loaded
            except UserError as error:
                logger.warning("%s It is learned again.", error)
        # The whole plan: which samples are calibrated on depends on all that are evaluated.
        asked = plan(self.task, calibration=True)
        for note in asked.notes:
            logger.warning("%s: %s", self.task.name, note)
        wanted = {*asked.calibration}
        requests = {request.key: request for request in asked.requests if request.key in wanted}
        label = f"{self.task.name}, calibration of {learner.name}"
        learned_from = [requests[key] for key in asked.calibration]
        learner.calibrate(self._kept.of(self._model, learned_from, label, show_progress=self.show_progress))
        write_atomically(self.state_path, learner.save)
        return method

    def _views(self, request: Request) -> list[Request]:
        """What must be asked for an answer, the request itself first: other displayed orders of its images too, if need be."""
        shown = request.permutation
        if self.method.views == "identity":
            return [request]
        orders = shown.cyclic_shifts() if self.method.views == "cyclic" else shown.random_orders(RANDOM_ORDERS)
        images = shown.inverse.apply(request.images)
        gold = shown.order[request.gold_position]
        return [
            replace(request, permutation=order, images=order.apply(images), gold_position=order.position_of(gold))
            for order in orders
        ]


def check_answers_here(method: Method) -> None:
    """Refuses methods that do not decide from evidence of the question as it is.

    Raises:
        UserError: the method reads replies, or changes how the model is asked.
    """
    if "replies" in method.needs:
        raise UserError(f"{method.name} reads what the model writes, and not evidence; use `lad-eval run`.")
    if method.condition != PLAIN:
        raise UserError(
            f"{method.condition.label} changes how the model is asked, which harnesses do themselves; use `lad-eval run`."
        )
