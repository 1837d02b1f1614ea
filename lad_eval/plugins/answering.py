"""A model under one method, answering requests of any of our tasks inside another harness."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from lad_eval.errors import UnknownNameError, UserError
from lad_eval.methods import Method, canonical_name, make_method, method_names
from lad_eval.models.prompts.date import DEFAULT_DATE
from lad_eval.models.registry import load_model
from lad_eval.models.source import SERVED
from lad_eval.plugins.calibrated import CalibratedMethod, check_answers_here
from lad_eval.plugins.documents import Document, open_task, request_of
from lad_eval.run.distributed import DistributedContext
from lad_eval.run.preflight import check_methods
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Request

N = TypeVar("N", int, float)

GENERATE = "generate"
"""Name for no method: the model's greedy reply, as free text."""


class Answering:
    """A vision-language model under one method; replies are identifiers.

    Evidence and calibration are stored below `store`, where `lad-eval run` stores its own: another method on the same model and
    task, and a run that was killed, runs only what is missing.

    Attributes:
        vlm: the model; None once it was released.
        method_name: as tables show it.
        batch_size: a number, or "auto".
        show_progress: on stderr.

    Args:
        pretrained: `lad-tiny`, `random:<family>`, a model folder, a hub id, or `openai:<name>`, a model behind a server.
        method: a name that `lad-eval ls methods` lists, with parameters, `lad(top_k=4, layers=all)`, and after
            interventions, `fastv(keep=0.25)+lad`; or "generate": greedy free text.
        calibrate_on: another task of ours, whose calibration samples are used instead of the task's.
        store: the folder above all runs.
        batch_size, device, dtype, attn, revision, adapter, image_preparation, trust_remote_code, date, seed: as for `lad-eval
            run`.
        base_url, concurrency, timeout: the same, for a model behind a server, whose requests have no batches.

    Raises:
        UserError: an argument is missing or wrong, the model cannot be loaded, or it does not give what the method needs.
    """

    def __init__(
        self,
        pretrained: Any = None,
        method: Any = None,
        calibrate_on: str | None = None,
        store: Any = "results/runs",
        batch_size: Any = 1,
        device: Any = "auto",
        dtype: str = "auto",
        attn: str | None = None,
        revision: Any = None,
        adapter: Any = None,
        image_preparation: Any = "protocol",
        trust_remote_code: bool = False,
        date: Any = DEFAULT_DATE,
        seed: int = 42,
        base_url: str | None = None,
        concurrency: Any = None,
        timeout: Any = None,
    ) -> None:
        if pretrained is None:
            raise UserError("Name a model: pretrained=<hub id, folder or lad-tiny>,method=lad.")
        if method is None:
            raise UserError(f"Name a method: method=<one of {', '.join((*method_names(), GENERATE))}>.")
        self.show_progress = True
        self.method_name = GENERATE if str(method) == GENERATE else canonical_name(str(method))
        if self.method_name != GENERATE:
            self._make()  # a method that cannot answer here is refused before the model is loaded
        self._calibrate_on = calibrate_on
        self._store = Path(str(store)).expanduser()
        self._answering: dict[str, CalibratedMethod] = {}
        from lad_eval.models.base import check_batch_size

        self.batch_size = check_batch_size(batch_size)
        alone = DistributedContext.from_environment().size == 1
        loaded: object = load_model(
            str(pretrained),
            revision=None if revision is None else str(revision),
            adapter=None if adapter is None else str(adapter),
            dtype=dtype,
            # Each of several processes has its own GPU, and "cuda" would be the first one for all of them.
            device="auto" if device == "cuda" and not alone else str(device),
            attn_implementation=attn,
            batch_size="auto" if str(pretrained).startswith(SERVED) else self.batch_size,
            image_preparation=image_preparation,
            seed=seed,
            trust_remote_code=trust_remote_code,
            date=str(date),
            base_url=base_url,
            concurrency=_number("concurrency", concurrency, int),
            timeout=_number("timeout", timeout, float),
        )
        self.vlm: Any = cast(Any, loaded)
        if self.method_name != GENERATE:
            check_methods(self.vlm, {self.method_name: self._make()})

    @property
    def device(self) -> Any:
        """`torch.device` of the model; the CPU for one behind a server."""
        import torch

        return self.vlm.model.device if hasattr(self.vlm, "model") else torch.device("cpu")

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Answering:
        """The model of a harness's model arguments.

        Raises:
            UnknownNameError: an argument is unknown.
            UserError: see above.
        """
        known = list(inspect.signature(cls).parameters)
        if unknown := [name for name in arguments if name not in known]:
            raise UnknownNameError("model argument", unknown[0], known)
        return cls(**arguments)

    def replies(self, documents: Sequence[Document]) -> list[str]:
        """One reply per document, in order; the documents may be of several tasks.

        Raises:
            UserError: an image cannot be read, a task has too few calibration samples, or a document is not one of ours.
        """
        requests = [request_of(document) for document in documents]
        if self.method_name == GENERATE:
            written: list[str] = self.vlm.generate(requests)
            return written
        by_task: dict[str, list[int]] = defaultdict(list)
        for place, document in enumerate(documents):
            by_task[document["task"]].append(place)
        replies = [""] * len(documents)
        methods = {task: self._calibrated(task) for task in by_task}  # what a task refuses is said before any is run
        for task, places in by_task.items():
            of_task = [requests[place] for place in places]
            positions = methods[task].answer(of_task)
            for place, request, position in zip(places, of_task, positions, strict=True):
                replies[place] = request.identifiers[position]
        return replies

    def check_task(self, task: str) -> None:
        """Whether the method can be calibrated for a task and stored in its folder.

        Raises:
            UserError: it cannot; the calibration samples themselves are not seen to here.
        """
        if self.method_name != GENERATE:
            self._calibrated(task)

    def release(self) -> None:
        """Frees the memory, and unlocks the evidence's folder for other processes."""
        self._answering.clear()
        self.vlm = None

    def _calibrated(self, task: str) -> CalibratedMethod:
        if task not in self._answering:
            opened = open_task(task).task if self._calibrate_on is None else load_task(task, calibrate_on=self._calibrate_on)
            self._answering[task] = CalibratedMethod(
                self.vlm, opened, self._make(), self._store, show_progress=self.show_progress
            )
        return self._answering[task]

    def _make(self) -> Method:
        """A new, uncalibrated method, so that each task calibrates its own."""
        method = make_method(self.method_name)
        check_answers_here(method, interventions=True)
        return method


def _number(name: str, value: Any, kind: type[N]) -> N | None:
    """A number as a harness hands it over, perhaps as text."""
    try:
        return None if value is None else kind(value)
    except (TypeError, ValueError):
        raise UserError(f"{name} must be a number, not {value!r}.") from None


def check_question(request: Request, context: str) -> None:
    """Checks that a harness did not change a question, since methods calibrate on the task's own.

    Raises:
        UserError: it added something to the question.
    """
    if context != request.question:
        raise UserError(
            "lad_eval uses a task's own question, without examples, system prompt or chat template around it; "
            "leave out --num_fewshot, --system_instruction and --apply_chat_template."
        )
