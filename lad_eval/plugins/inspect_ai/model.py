"""`--model lad_eval/...` of inspect_ai: any model of ours, answering with a method of ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, modelapi
from rich.markup import escape

from lad_eval.errors import UserError
from lad_eval.plugins.answering import GENERATE, Answering
from lad_eval.plugins.documents import Document, open_task
from lad_eval.terminal import visible

GATHERING_SECONDS = 0.01
"""How long questions that are on their way are waited for, before those that have come are answered in one batch."""
_ONE_AT_A_TIME = threading.Lock()
"""Models of ours share what they store."""


@contextmanager
def one_line() -> Iterator[None]:
    """A user error becomes inspect_ai's own, which its command prints without a traceback."""
    try:
        yield
    except UserError as error:
        raise PrerequisiteError(escape(f"error: {visible(' '.join(str(error).split()))}")) from None


def as_given(value: Any) -> Any:
    """A value of -M or -T as it was written: inspect_ai makes a list of a text with commas."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


@dataclass
class _Question:
    document: Document
    reply: str | None = None
    fault: UserError | None = None


@modelapi(name="lad_eval")
class LadEval(ModelAPI):
    """A vision-language model under one method; replies are identifiers.

    Args:
        model_name: `lad-tiny`, `random:<family>`, a model folder, or a hub id.
        base_url, api_key: of inspect_ai; not used.
        config: of inspect_ai; of it the number of connections counts, as no more questions are answered in one batch.
        arguments: -M, as `lad_eval.plugins.answering.Answering` takes them.

    Raises:
        PrerequisiteError: an argument is missing, unknown or wrong, or the model cannot be loaded.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 (inspect_ai's own signature)
        **arguments: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        with one_line():
            given = {name: as_given(value) for name, value in arguments.items()}
            self.answering = Answering.from_arguments({"pretrained": model_name, **given})
        self.answering.show_progress = False  # inspect_ai has the terminal
        self._waiting: list[_Question] = []
        self._turn = anyio.Lock()

    async def generate(self, input: list[ChatMessage], tools: Any, tool_choice: Any, config: GenerateConfig) -> ModelOutput:
        """One reply; questions of all samples that have come meanwhile are answered in one batch, in a thread."""
        with one_line():
            question = _Question(_document(input))
            self._waiting.append(question)
            async with self._turn:
                if question.reply is None and question.fault is None:
                    await anyio.sleep(GATHERING_SECONDS)
                    waiting, self._waiting = self._waiting, []
                    await anyio.to_thread.run_sync(self._answer, waiting)
            if question.fault is not None:
                raise question.fault
        return ModelOutput.from_content(self.model_name, question.reply or "")

    def _answer(self, questions: list[_Question]) -> None:
        with _ONE_AT_A_TIME:
            try:
                replies = self.answering.replies([question.document for question in questions])
            except UserError as fault:
                for question in questions:
                    question.fault = fault
                return
        for question, reply in zip(questions, replies, strict=True):
            question.reply = reply


def _document(messages: list[ChatMessage]) -> Document:
    """What identifies our request in a question as the solver put it."""
    document = messages[0].metadata or {}
    if len(messages) > 1 or not {"task", "key"} <= document.keys():
        raise UserError(
            "A model of lad_eval answers questions of tasks of lad_eval as they are: name such a task, lad_eval/scenes_random_n4, "
            "and leave out --system-message and --solver."
        )
    if document["key"] not in open_task(document["task"]).requests:
        raise UserError(f"With a model of lad_eval, -M method=... decides: leave out -T method, which is {GENERATE} then.")
    return document
