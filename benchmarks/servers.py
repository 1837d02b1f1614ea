"""Requests a second that the client of a model server manages: its overhead, with a server that answers at once."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.models import Plan, requests_for
from benchmarks.preparing import Photo
from benchmarks.report import Table
from lad_eval.evidence.replies import Decoding
from lad_eval.models.inputs.images import ImageCache
from lad_eval.models.server.address import Address
from lad_eval.models.server.messages import encode_png
from lad_eval.models.server.model import ServedVLM
from lad_eval.tasks.request import Permutation, Request

N, ORDERS = 4, 5
GOAL = 200


def run(plan: Plan) -> list[Table]:
    samples = 4 if plan.width < 512 else 40
    photographs = _photographs(samples)
    return [_requests(samples, {"drawn scenes": _scenes(samples), "photographs": photographs}), _stages(photographs)]


def _requests(samples: int, kinds: dict[str, list[Request]]) -> Table:
    rows = []
    with _server() as url:
        for concurrency in (1, 8, 32):
            model = ServedVLM("served", Address(url), name="openai:served", concurrency=concurrency)
            for kind, requests in kinds.items():
                for label in ("images new", "images seen before"):
                    wall, cpu = time.perf_counter(), time.process_time()
                    answers = sum(map(len, model.reply_batches(requests, Decoding())))
                    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                    times = f"{answers / wall:.0f}", f"{1000 * cpu / answers:.1f}", f"{answers / cpu:.0f}"
                    rows.append((concurrency, kind, label, *times))
    columns = ("at once", "images", "", "requests a second", "ms of CPU time a request", "requests a second of CPU time")
    note = (
        f"{samples} samples of {N} images, 336 x 336, in {ORDERS} orders; photographs are JPEGs of 640 x 480. The server, "
        f"another process here, answers at once. Goal: at least {GOAL} requests a second."
    )
    return Table("Requests to a model server: the client's overhead", columns, rows, note)


def _stages(requests: list[Request]) -> Table:
    sources = list({source.digest: source for request in requests for source in request.images}.values())
    stages: dict[str, Callable[[Any], Any]] = {
        "decoding": lambda source: source.load(),
        "resizing": ImageCache("protocol").prepare,
        "PNG": encode_png,
        "base64": base64.b64encode,
    }
    seconds = dict.fromkeys(stages, 0.0)
    for source in sources:
        result: Any = source
        for stage, work in stages.items():
            started = time.process_time()
            result = work(result)
            seconds[stage] += time.process_time() - started
    rows = [(stage, f"{1000 * spent / len(sources):.2f}") for stage, spent in seconds.items()]
    total = 1000 * sum(seconds.values()) / len(sources)
    a_request = total * len(sources) / len(requests)
    note = f"{total:.1f} ms in all, which makes {a_request:.1f} ms a request where {ORDERS} orders show the same {N} images."
    return Table("A new photograph on its way into a request", ("stage", "ms of CPU time"), rows, note)


def _scenes(samples: int) -> list[Request]:
    return _in_orders(requests_for(N, samples, seed="servers"))


def _photographs(samples: int) -> list[Request]:
    shown = []
    for drawn in requests_for(N, samples, seed="photographs"):
        images = tuple(Photo(f"servers/{drawn.sample_id}/{index}") for index in range(N))
        for image in images:
            assert image.content  # so that making the file is not timed
        fields = drawn.question, drawn.identifiers, drawn.gold_position, drawn.split
        shown.append(Request(drawn.sample_id, Permutation.identity(N), images, *fields))
    return _in_orders(shown)


def _in_orders(requests: list[Request]) -> list[Request]:
    return [r.reordered(order) for r in requests for order in r.permutation.random_orders(ORDERS)]


@contextmanager
def _server() -> Iterator[str]:
    """The address of a stand-in for a model server, in a process of its own."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield here.recv()
    finally:
        here.send(None)
        process.join(10)


def _serve(connection: Connection) -> None:
    stand_in_module: Any = import_module("tests.models.stand_in")
    with stand_in_module.StandIn(remembers=False, reply=lambda body: "1").running() as stand_in:
        connection.send(stand_in.url)
        connection.recv()
