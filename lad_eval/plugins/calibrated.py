"""A method of ours behind another harness: calibrated on first use, then asked request by request."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from lad_eval.errors import UserError
from lad_eval.methods import Method, make_method
from lad_eval.models.base import VLM
from lad_eval.plugins.kept import kept_evidence
from lad_eval.run.folder import slug, write_atomically
from lad_eval.tasks.plan import plan
from lad_eval.tasks.request import Request
from lad_eval.tasks.task import Task

logger = logging.getLogger(__name__)

T = TypeVar("T")


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
        UserError: the method does not exist, or the folder cannot be used.
    """

    def __init__(self, model: VLM, task: Task, method: str | Method, store: str | Path, *, show_progress: bool = True) -> None:
        self.method = make_method(method) if isinstance(method, str) else method
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
        told = json.dumps([type(self.method).__name__, self.method.get_params()], sort_keys=True, default=str)
        return (
            self.folder / "calibration" / f"{slug(self.method.name)}-{hashlib.sha256(told.encode()).hexdigest()[:12]}.safetensors"
        )

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
        seen = [view for request in requests for view in self._views(request)]
        each_once = list({view.key: view for view in seen}.values())
        label = f"{self.task.name}, {method.name}"
        scores = method.predict_log_proba(self._kept.of(self._model, each_once, label, show_progress=self.show_progress))
        row = {view.key: i for i, view in enumerate(each_once)}
        return [int(scores[row[request.key]].argmax()) for request in requests]

    @cached_property
    def _ready(self) -> Method:
        """The method, calibrated from the stored state, else from stored evidence, else by asking."""
        method = self.method
        if not method.calibrates or method.is_calibrated:
            return method
        if self.state_path.is_file():
            try:
                return type(method).load(self.state_path)
            except UserError as error:
                logger.warning("%s It is learned again.", error)
        asked = plan(self.task, limit=1, calibration=True)
        wanted = {*asked.calibration}
        requests = {request.key: request for request in asked.requests if request.key in wanted}
        label = f"{self.task.name}, calibration of {method.name}"
        evidence = self._kept.of(
            self._model, [requests[key] for key in asked.calibration], label, show_progress=self.show_progress
        )
        method.calibrate(evidence)
        write_atomically(self.state_path, method.save)
        return method

    def _views(self, request: Request) -> list[Request]:
        """What must be asked for an answer: the request itself first, with `cyclic` its N - 1 shifts too."""
        if self.method.views != "cyclic":
            return [request]
        shown = request.permutation
        images = shown.inverse.apply(request.images)
        gold = shown.order[request.gold_position]
        return [
            Request(
                sample_id=request.sample_id,
                permutation=order,
                images=order.apply(images),
                question=request.question,
                identifiers=request.identifiers,
                gold_position=order.position_of(gold),
                split=request.split,
            )
            for order in shown.cyclic_shifts()
        ]
