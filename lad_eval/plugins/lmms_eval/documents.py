"""Our requests as lmms-eval's documents: one row a test sample and displayed order; calibration samples are none of them.

The functions are named in the YAML files that `generate` writes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any

from lad_eval.errors import UserError
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Request, showing
from lad_eval.tasks.task import Task
from lad_eval.terminal import visible

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image


@contextmanager
def one_line() -> Iterator[None]:
    """Below lmms-eval's command a user error is one line and the end of the process; in a script it stays an exception.

    SystemExit also passes through the retries that lmms-eval puts around the loading of data.
    """
    try:
        yield
    except UserError as error:
        if not _below_command():
            raise
        sys.stderr.write(f"error: {visible(' '.join(str(error).split()))}\n")
        raise SystemExit(error.exit_code) from None


def _below_command() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "cli_evaluate":
        frame = frame.f_back
    return frame is not None


Document = Mapping[str, Any]


@dataclass(frozen=True)
class OpenTask:
    """A task with its test requests by key, and the documents made of them, sample by sample."""

    task: Task
    requests: Mapping[str, Request]
    rows: tuple[Document, ...]


@cache
def open_task(name: str) -> OpenTask:
    """The task of a name or of a YAML file, opened once a process.

    Raises:
        UserError: the task is unknown, or its data is missing or too little.
    """
    task = load_task(name)
    planned = plan(task)
    requests = {request.key: request for request in planned.requests}
    rows = tuple(
        _row(name, requests[key], order, len(task.orders))
        for key, order in zip(planned.evaluated, planned.permutation_index, strict=True)
    )
    return OpenTask(task, requests, rows)


def _row(name: str, request: Request, permutation: int, orders: int) -> Document:
    return {
        "task": name,
        "key": request.key,
        "sample": request.sample_id,
        "permutation": permutation,
        "orders": orders,
        "order": list(request.permutation.order),
        "question": request.question,
        "identifiers": list(request.identifiers),
        "gold": request.gold_position,
    }


def documents(stub: Dataset) -> Dataset:
    """`process_docs`: the documents of the task that the one row of `stub` names.

    Raises:
        UserError: the task is unknown, is no longer what it was when the folder was written, or its data is missing.
    """
    from datasets import Dataset

    written = stub[0]
    with one_line():
        opened = open_task(written["task"])
        if opened.task.spec.digest != written["definition"]:
            raise UserError(
                f"The definition of {opened.task.name} has changed since its folder for lmms-eval was written; "
                "write it again with `lad-eval lmms-eval tasks`."
            )
        return Dataset.from_list([dict(row) for row in opened.rows])


def request_of(document: Document) -> Request:
    """The request that a document stands for.

    Raises:
        UserError: the document is not one of ours.
    """
    if not {"task", "key"} <= document.keys():
        raise UserError("This is not a task of lad_eval; `lad-eval lmms-eval tasks` writes those that it knows.")
    return open_task(document["task"]).requests[document["key"]]


def images(document: Document) -> list[Image]:
    """`doc_to_visual`: the pictures in displayed order, in their own size."""
    with one_line():
        request = request_of(document)
        with showing(request.sample_id):
            return [image.load() for image in request.images]


def question(document: Document) -> str:
    """`doc_to_text`: the text after the images."""
    return str(document["question"])


def answer(document: Document) -> str:
    """`doc_to_target`: the right identifier."""
    return str(document["identifiers"][document["gold"]])
