"""Requests a second that the client of a model server manages: its overhead, with a server that answers at once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.models import Plan, requests_for
from benchmarks.report import Table
from lad_eval.evidence.replies import Decoding
from lad_eval.models.server.address import Address
from lad_eval.models.server.model import ServedVLM
from lad_eval.tasks.request import Permutation, Request

N, ORDERS = 4, 5
GOAL = 200


@dataclass(frozen=True)
class Photo:
    """A picture of 640 x 480 pixels with smooth areas and some noise, as hard to compress as a photograph; in memory."""

    seed: int
    picture: Image.Image

    @classmethod
    def of(cls, seed: int) -> Photo:
        generator = np.random.default_rng(seed)
        coarse = generator.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC), dtype=np.int16)
        pixels = np.clip(smooth + generator.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
        return cls(seed, Image.fromarray(pixels))

    @property
    def digest(self) -> str:
        return f"photo-{self.seed}"

    def load(self) -> Image.Image:
        return self.picture


def run(plan: Plan) -> list[Table]:
    samples = 4 if plan.width < 512 else 60
    kinds = {"drawn scenes": _scenes(samples), "photographs": _photographs(samples)}
    rows = []
    with _server() as url:
        for concurrency in (1, 8, 32):
            model = ServedVLM("served", Address(url), name="openai:served", concurrency=concurrency)
            for kind, requests in kinds.items():
                for label in ("images new", "images seen before"):
                    wall, cpu = time.perf_counter(), time.process_time()
                    answers = sum(map(len, model.reply_batches(requests, Decoding())))
                    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                    rows.append((concurrency, kind, label, f"{answers / wall:.0f}", f"{1000 * cpu / answers:.1f}"))
    columns = ("at once", "images", "", "requests a second", "ms of CPU time a request")
    note = (
        f"{samples} samples of {N} images, 336 x 336, in {ORDERS} orders; the server, another process here, answers at once. "
        f"Goal: at least {GOAL} requests a second."
    )
    return [Table("Requests to a model server: the client's overhead", columns, rows, note)]


def _scenes(samples: int) -> list[Request]:
    return _in_orders(requests_for(N, samples, seed="servers"))


def _photographs(samples: int) -> list[Request]:
    generator = random.Random(0)
    drawn = requests_for(N, samples, seed="photographs")
    names = [tuple(Photo.of(generator.randrange(2**32)) for _ in range(N)) for _ in drawn]
    shown = [
        Request(r.sample_id, Permutation.identity(N), images, r.question, r.identifiers, r.gold_position, r.split)
        for r, images in zip(drawn, names, strict=True)
    ]
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
