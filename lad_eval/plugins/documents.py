"""Our test requests as documents of other harnesses, one per displayed order; calibration samples are not included."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from types import FrameType
from typing import TYPE_CHECKING, Any

from lad_eval.errors import UserError
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import ImageSource, Request, showing
from lad_eval.tasks.sources.base import as_file
from lad_eval.tasks.task import Task
from lad_eval.terminal import visible

if TYPE_CHECKING:
    from PIL.Image import Image

Document = Mapping[str, Any]
"""One displayed order of a sample; see `OpenTask.rows`."""


@contextmanager
def one_line() -> Iterator[None]:
    """Under a harness's own command a user error ends the process with one line; in a script it stays an exception.

    SystemExit also passes through lmms-eval's retries of loading data.
    """
    try:
        yield
    except UserError as error:
        if not _below_command():
            raise
        sys.stderr.write(f"error: {visible(' '.join(str(error).split()))}\n")
        raise SystemExit(error.exit_code) from None


def _below_command() -> bool:
    """Whether `lm_eval` or `lmms_eval` was started as a command: the entry points of both have the same name."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "cli_evaluate":
        frame = frame.f_back
    return frame is not None


@dataclass(frozen=True)
class OpenTask:
    """A task with its test requests.

    Attributes:
        task: as opened.
        requests: by key.
        rows: the documents, sample by sample, T displayed orders each.
    """

    task: Task
    requests: Mapping[str, Request]
    rows: tuple[Document, ...]

    @cached_property
    def samples(self) -> tuple[tuple[Document, ...], ...]:
        """The documents of each sample."""
        by_sample: dict[str, list[Document]] = {}
        for row in self.rows:
            by_sample.setdefault(row["sample"], []).append(row)
        return tuple(tuple(rows) for rows in by_sample.values())

    def check_definition(self, digest: str, command: str) -> None:
        """Checks that the task is still the one that was written for a harness.

        Raises:
            UserError: its definition has changed since.
        """
        if self.task.spec.digest != digest:
            raise UserError(
                f"The definition of {self.task.name} has changed since its folder was written; write it again with `{command}`."
            )


@cache
def open_task(name: str) -> OpenTask:
    """The task of a name or of a YAML file, opened once per process.

    Raises:
        UserError: the task is unknown, or its data is missing or too little.
    """
    task = load_task(name)
    planned = plan(task)
    requests = {request.key: request for request in planned.requests}
    rows = tuple(
        _row(name, requests[key], order, max(planned.permutation_index) + 1)
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
        "images": len(request.images),
        "question": request.question,
        "identifiers": list(request.identifiers),
        "gold": request.gold_position,
    }


def request_of(document: Document) -> Request:
    """The request of a document.

    Raises:
        UserError: the document is not one of ours.
    """
    if not {"task", "key"} <= document.keys():
        raise UserError("This is not a task of lad_eval; `lad-eval ls tasks` lists those that it knows.")
    return open_task(document["task"]).requests[document["key"]]


def images(document: Document) -> list[Image]:
    """The pictures in displayed order, in their original size.

    Raises:
        UserError: a picture cannot be read.
    """
    request = request_of(document)
    with showing(request.sample_id):
        return [image.load() for image in request.images]


def data_uri(image: ImageSource) -> str:
    """A picture for models behind a network: its file, where decoding changes nothing; else a PNG of what our models are shown.

    Raises:
        UserError: it cannot be read.
    """
    kind, content = as_file(image)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def answer(document: Document) -> str:
    """The right identifier."""
    return str(document["identifiers"][document["gold"]])
