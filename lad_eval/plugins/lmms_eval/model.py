"""`--model lad_eval` of lmms-eval: any model of ours, answering with a method of ours."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

from lmms_eval.api.model import lmms
from lmms_eval.utils import simple_parse_args_string

from lad_eval.errors import UnknownNameError, UserError
from lad_eval.methods import Method, canonical_name, method_names, resolve_methods
from lad_eval.models.prompts.date import DEFAULT_DATE
from lad_eval.models.registry import load_model
from lad_eval.names import OUTSIDE_BRACKETS
from lad_eval.plugins.calibrated import CalibratedMethod, check_answers_here
from lad_eval.plugins.lmms_eval.documents import one_line, open_task, request_of
from lad_eval.run.distributed import DistributedContext
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Request

GENERATE = "generate"
"""The method name that stands for no method: the model's own greedy reply, as free text."""


class LadEval(lmms):  # type: ignore[misc]
    """A vision-language model under one method; replies are identifiers.

    Evidence and calibration are kept below `store`, where `lad-eval run` keeps its own: another method on the same model and
    task, and a run that was killed, runs only what is missing.

    Args:
        pretrained: `lad-tiny`, `random:<family>`, a model folder, or a hub id.
        method: a name that `lad-eval ls methods` lists, with parameters as everywhere, `lad(top_k=4, layers=all)`, and behind
            interventions, `fastv(keep=0.25)+lad`; or "generate": greedy free text.
        calibrate_on: another task of ours, whose calibration samples take the place of the task's own.
        store: the folder above all runs.
        batch_size, device, dtype, attn, revision, adapter, image_preparation, trust_remote_code, date, seed: as `lad-eval run`
            takes them.
        unknown: refused.

    Raises:
        UserError: an argument is missing, unknown or wrong, or the model cannot be loaded.
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
        **unknown: Any,
    ) -> None:
        super().__init__()
        _refuse(unknown)
        if pretrained is None:
            raise UserError("Name a model: --model_args pretrained=<hub id, folder or lad-tiny>,method=lad.")
        self.method_name = _known_method(method)
        self._make()
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
            # Each of several processes has a GPU of its own, and "cuda" would be the first for all of them.
            device="auto" if device == "cuda" and not alone else str(device),
            attn_implementation=attn,
            batch_size=self.batch_size,
            image_preparation=image_preparation,
            seed=seed,
            trust_remote_code=trust_remote_code,
            date=str(date),
        )
        self.vlm: Any = cast(Any, loaded)
        self.device = self.vlm.model.device

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Mapping[str, Any] | None = None) -> LadEval:
        """The model of lmms-eval's `--model_args`; these win over its own `--batch_size` and `--device`."""
        settings = {key: value for key, value in (additional_config or {}).items() if value is not None}
        with one_line():
            try:
                # A method's parameters are its own: lmms-eval would end the argument at the first comma between brackets.
                arguments = re.split("," + OUTSIDE_BRACKETS, arg_string)
                settings |= simple_parse_args_string(",".join(argument for argument in arguments if "(" not in argument))
                settings |= dict(argument.strip().split("=", 1) for argument in arguments if "(" in argument)
            except ValueError:
                raise UserError(f"--model_args must be key=value, separated by commas, not {arg_string!r}.") from None
            return cls(**settings)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """One reply per request; lmms-eval's generation arguments have no effect, since methods read log-probabilities."""
        by_task: dict[str, list[int]] = defaultdict(list)
        with one_line():
            in_order: list[Request] = []
            for place, instance in enumerate(requests):
                request, task = self._request(instance)
                in_order.append(request)
                by_task[task].append(place)
            replies = [""] * len(in_order)
            for task, places in by_task.items():
                for place, reply in zip(places, self._replies(task, [in_order[p] for p in places]), strict=True):
                    replies[place] = reply
        return replies

    def generate_until_multi_round(self, requests: Sequence[Any]) -> NoReturn:
        """Refused: our questions have one round."""
        self._refuse_kind("several rounds")

    def loglikelihood(self, requests: Sequence[Any]) -> NoReturn:
        """Refused: our tasks ask for replies."""
        self._refuse_kind("log-likelihoods of given texts")

    def clean(self) -> None:
        """Gives the memory back, and the evidence's folder to other processes."""
        self._answering.clear()
        self.vlm = None
        super().clean()

    def _request(self, instance: Any) -> tuple[Request, str]:
        """Our request behind an instance, and the name under which its task is opened."""
        context, _, _, doc_id, task, split = instance.args
        document = self.task_dict[task][split][doc_id]
        if not {"task", "key"} <= document.keys():
            raise UserError(
                f"{task} is not a task of lad_eval, which `--model lad_eval` needs; `lad-eval lmms-eval tasks` writes them."
            )
        request = request_of(document)
        if context != request.question:
            raise UserError(
                f"{task}: lad_eval uses the task's own question, without examples, system prompt or chat template around it; "
                "leave out --num_fewshot, --system_instruction and --apply_chat_template."
            )
        return request, document["task"]

    def _replies(self, task: str, requests: Sequence[Request]) -> list[str]:
        if self.method_name == GENERATE:
            replies: list[str] = self.vlm.generate(requests)
            return replies
        if task not in self._answering:
            opened = open_task(task).task if self._calibrate_on is None else load_task(task, calibrate_on=self._calibrate_on)
            self._answering[task] = CalibratedMethod(self.vlm, opened, self._make(), self._store)
        positions = self._answering[task].answer(requests)
        return [request.identifiers[position] for request, position in zip(requests, positions, strict=True)]

    def _make(self) -> Method | str:
        """A method that has seen nothing yet, so that each task calibrates its own."""
        if self.method_name == GENERATE:
            return GENERATE
        [method] = resolve_methods([self.method_name]).values()
        check_answers_here(method, interventions=True)
        return method

    def _refuse_kind(self, kind: str) -> NoReturn:
        with one_line():
            raise UserError(f"`--model lad_eval` answers the tasks that `lad-eval lmms-eval tasks` writes, not {kind}.")
        raise AssertionError


def _known_method(name: Any) -> str:
    if name is None:
        raise UserError(f"Name a method: --model_args ...,method=<one of {', '.join((*method_names(), GENERATE))}>.")
    return str(name) if name == GENERATE else canonical_name(str(name))


def _refuse(unknown: Mapping[str, Any]) -> None:
    if not unknown:
        return
    known = [name for name in inspect.signature(LadEval).parameters if name != "unknown"]
    raise UnknownNameError("model argument", next(iter(unknown)), known)
