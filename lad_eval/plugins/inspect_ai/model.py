"""`--model lad_eval/...` of inspect_ai: any model of ours, answering with a method of ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, modelapi
from rich.markup import escape

from lad_eval.errors import UserError
from lad_eval.plugins.answering import GENERATE, Answering
from lad_eval.plugins.documents import Document, open_task
from lad_eval.plugins.replying import as_written
from lad_eval.terminal import visible

GATHERING_SECONDS = 0.01
"""How long questions that are on their way are waited for, before those that have come are answered in one batch."""
_ONE_AT_A_TIME = threading.Lock()  # models of ours share what they store


@contextmanager
def one_line() -> Iterator[None]:
    """A user error becomes inspect_ai's own, which its command prints without a traceback."""
    try:
        yield
    except UserError as error:
        raise PrerequisiteError(escape(f"error: {visible(' '.join(str(error).split()))}")) from None


class LadEvalAPI(ModelAPI):  # type: ignore[misc]
    """A vision-language model under one method; replies are identifiers. What is wrong is a PrerequisiteError of one line.

    Args:
        model_name: `lad-tiny`, `random:<family>`, a model folder, a hub id, or `openai:<name>`.
        base_url: of a model behind a server, `openai:<name>`.
        api_key, config: of inspect_ai; not used.
        arguments: -M, as `lad_eval.plugins.answering.Answering` takes them.
    """

    def __init__(self, model_name: str, base_url: Any, api_key: Any, config: GenerateConfig, **arguments: Any) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        with one_line():
            named = {name: as_written(value) for name, value in arguments.items()}
            server = {} if base_url is None else {"base_url": base_url}
            self._answering = Answering.from_arguments({"pretrained": model_name, **server, **named})
        self._answering.show_progress = False  # inspect_ai has the terminal
        self._waiting: dict[tuple[str, str], Document] = {}
        self._replies: dict[tuple[str, str], str] = {}
        self._turn = anyio.Lock()

    def check(self, task: str, method: str) -> None:
        """Refuses, with a UserError, a task that it cannot answer or that has a method of its own, before anything is run."""
        if method != GENERATE:
            raise UserError(f"With a model of lad_eval -M method=... decides: leave out -T method={method}.")
        self._answering.check_task(task)

    async def generate(self, input: list[ChatMessage], tools: Any, tool_choice: Any, config: GenerateConfig) -> ModelOutput:
        """One reply; questions of all samples that have come meanwhile are answered in one batch, in a thread."""
        with one_line():
            document = _document(input)
            place = (document["task"], document["key"])
            self._waiting[place] = document
            async with self._turn:
                if place not in self._replies:
                    await anyio.sleep(GATHERING_SECONDS)
                    batch, self._waiting = {**self._waiting, place: document}, {}
                    self._replies |= await anyio.to_thread.run_sync(self._answer, batch)
        return ModelOutput.from_content(self.model_name, self._replies[place])

    def _answer(self, batch: Mapping[tuple[str, str], Document]) -> dict[tuple[str, str], str]:
        with _ONE_AT_A_TIME:
            return dict(zip(batch, self._answering.replies(list(batch.values())), strict=True))


def _document(messages: list[ChatMessage]) -> Document:
    """What identifies our request in a question as the solver put it."""
    document = messages[0].metadata or {}
    known = {"task", "key"} <= document.keys() and document["key"] in open_task(document["task"]).requests
    if len(messages) > 1 or not known:
        raise UserError(
            "A model of lad_eval answers the questions of lad_eval's tasks as they are: name a task such as "
            "lad_eval/scenes_random_n4, and leave out --system-message, --solver and -T method."
        )
    return document


modelapi(name="lad_eval")(LadEvalAPI)
