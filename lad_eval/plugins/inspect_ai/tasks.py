"""Our tasks in inspect_ai, and the solver that asks a sample under all its displayed orders."""

from __future__ import annotations

from itertools import islice

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessage, ChatMessageUser, ContentImage, ContentText, GenerateConfig, ModelOutput, get_model
from inspect_ai.model._model import active_model
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.util import collect, span

from lad_eval.errors import UserError
from lad_eval.evidence.replies import UNKNOWN_PASSES, Decoding, Reply, row_of
from lad_eval.plugins.answering import GENERATE
from lad_eval.plugins.documents import answer, data_uri, open_task
from lad_eval.plugins.inspect_ai.model import LadEvalAPI, one_line
from lad_eval.plugins.inspect_ai.scoring import REPLIES, over_orders
from lad_eval.plugins.replying import as_written, check_orders, reply_method, requests_behind
from lad_eval.tasks.registry import place_of, task_names
from lad_eval.tasks.request import Request, showing


@solver  # type: ignore[untyped-decorator]
def each_order(method: str) -> Solver:
    """Asks, all at once, whatever the method must know to decide each displayed order of a sample."""
    decides = reply_method(method, "inspect_ai")
    decoding = decides.decoding or Decoding()

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        pictures: dict[str, ContentImage] = {}
        with one_line():
            behind = {r.key: (d["task"], r) for d in state.metadata["orders"] for r in requests_behind(d, decides)}
            turns = [(request, _message(task, request, pictures)) for task, request in behind.values()]
        written = iter(await collect(*(_reply(message, decoding, n) for _, message in turns for n in range(decoding.samples))))
        state.messages = []
        rows = []
        for request, message in turns:
            outputs = [*islice(written, decoding.samples)]
            reply = Reply(request.key, tuple(o.completion for o in outputs), UNKNOWN_PASSES, sum(o.time or 0 for o in outputs))
            rows.append(row_of(request, reply))
            state.messages += [message, *(output.message for output in outputs if output.choices)]
            state.output = outputs[-1]
        state.store.set(REPLIES, rows)
        return state

    return solve


def _message(task: str, request: Request, pictures: dict[str, ContentImage]) -> ChatMessageUser:
    """The pictures in displayed order, then the question; each picture is read once a sample."""
    with showing(request.sample_id):
        for image in request.images:
            if image.digest not in pictures:
                pictures[image.digest] = ContentImage(image=data_uri(image))
    content = [*(pictures[image.digest] for image in request.images), ContentText(text=request.question)]
    order = " ".join(map(str, request.permutation.order))
    return ChatMessageUser(content=content, metadata={"task": task, "key": request.key, "order": order})


async def _reply(message: ChatMessage, decoding: Decoding, number: int) -> ModelOutput:
    """One of several replies, written as the decoding says."""
    seed = decoding.seed + number if decoding.temperature else None
    config = GenerateConfig(max_tokens=decoding.max_new_tokens, temperature=decoding.temperature, seed=seed)
    async with span(f"displayed order {message.metadata['order']}"):
        return await get_model().generate([message], config=config)


def _task(name: str | None, method: str | list[str]) -> Task:
    """The task of a name or of a YAML file, decided by a method that needs replies only."""
    with one_line():
        if name is None:
            raise UserError("Name a YAML file: -T name=<file>; tasks that come with lad_eval are lad_eval/<name>.")
        decides, place = str(as_written(method)), place_of(name)
        opened = open_task(place)
        check_orders(reply_method(decides, "inspect_ai"), place)
        if (model := active_model()) is not None and isinstance(model.api, LadEvalAPI):
            model.api.check(place, decides)
    spec = opened.task.spec
    samples = [
        Sample(id=r[0]["sample"], input=r[0]["question"], target=[*map(answer, r)], metadata={"orders": [*map(dict, r)]})
        for r in opened.samples
    ]
    data, solve, score = MemoryDataset(samples, name=spec.name), each_order(decides), over_orders(decides)
    return Task(data, solver=solve, scorer=score, name=spec.name, version=spec.version, metadata={"definition": spec.digest})


@task(name="task")  # type: ignore[untyped-decorator]
def from_file(name: str | None = None, method: str = GENERATE) -> Task:
    """A task of a YAML file: `lad_eval/task -T name=my.yaml`."""
    return _task(name, method)


def _register(name: str) -> None:
    @task(name=name)  # type: ignore[untyped-decorator]
    def bundled(method: str = GENERATE) -> Task:
        return _task(name, method)


for _name in task_names():
    _register(_name)
