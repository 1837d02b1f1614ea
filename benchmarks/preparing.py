"""What preparing a request's inputs costs: Qwen2.5-VL's processor as it is, against inputs put together from remembered parts."""

from __future__ import annotations

import io
import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image as Pil
from PIL.Image import Image

from benchmarks.models import Plan
from benchmarks.report import Table
from benchmarks.timer import stage_costs, take_turns
from lad_eval.data.decoding import decode
from lad_eval.models.inputs.images import ImageCache
from lad_eval.models.inputs.preparation import Preparation
from lad_eval.models.prompts.conversation import Conversation
from lad_eval.models.random import load_random
from lad_eval.tasks.prompts import identifiers, question
from lad_eval.tasks.request import Permutation, Request, Sample

COUNTS = (4, 8, 12)
ORDERS = 4
PLAIN, REMEMBERED, NEW = "the processor", "remembered", "new"
SHOWN = (1, 4, 5)
THREADS, REQUESTS = 2, 20
GOAL = 8.0
"""Milliseconds of the wall a request with new JPEGs, at N = 4 on two threads."""
_SIZE = (640, 480)


@dataclass(frozen=True)
class Photo:
    """A JPEG of the size of COCO's, with noise in it, which the decoder has to work for."""

    seed: str

    @property
    def digest(self) -> str:
        return self.seed

    @cached_property
    def content(self) -> bytes:
        generator = random.Random(self.seed)
        coarse = Pil.frombytes("RGB", (64, 48), generator.randbytes(64 * 48 * 3)).resize(_SIZE)
        fine = Pil.frombytes("RGB", _SIZE, generator.randbytes(_SIZE[0] * _SIZE[1] * 3))
        file = io.BytesIO()
        Pil.blend(coarse, fine, 0.1).save(file, "JPEG", quality=90)
        return file.getvalue()

    def load(self) -> Image:
        return decode(self.content)


def run(plan: Plan) -> list[Table]:
    model, processor = load_random("qwen2.5-vl-3b", device="meta")
    rows = [_row(model, processor, n, plan) for n in COUNTS]
    remembered = Table(
        f"Preparing a request (Qwen2.5-VL's processor, N pictures of 336 x 336, JPEGs of {_SIZE[0]} x {_SIZE[1]})",
        ("N", "processor, ms", "remembered, ms", "by processor", f"new in {ORDERS} orders, ms", "of it pictures, ms"),
        rows,
        "Processor: its own output for pictures that are in memory at that size. Remembered: both were shown "
        f"in another order. New: JPEGs and a question that were not, a request of {ORDERS} in which they are shown; the "
        "pictures' part, decoding, resizing and the image processor, runs in several threads. "
        "Milliseconds of CPU time, of all threads together. Goals: remembered at most 2.5 ms at N = 4.",
    )
    return [remembered, _new(model, processor, plan), _stages(processor)]


def _new(model: Any, processor: Any, plan: Plan) -> Table:
    """New JPEGs and questions, batch after batch, by the number of orders in which a sample is shown."""
    n = COUNTS[0]
    rows = []
    for orders in SHOWN:
        cpu, wall = [], []
        for number in range(-1, min(plan.rounds, 3)):
            prepare = Preparation(model, processor, Conversation(processor, "qwen2.5-vl-3b"), "protocol")
            prepare._parts._pool = ThreadPoolExecutor(THREADS)
            samples = [_orders(f"{orders} orders, {number}, {place}", n, orders) for place in range(-2, REQUESTS // orders)]
            for source in (source for requests in samples for source in requests[0].images):
                assert source.load()
            for requests in samples[:2]:  # of each kind of batch the first is made both ways
                prepare(requests)
            began = time.perf_counter(), time.process_time()
            for requests in samples[2:]:
                prepare(requests)
            wall.append(1e3 * (time.perf_counter() - began[0]) / REQUESTS)
            cpu.append(1e3 * (time.process_time() - began[1]) / REQUESTS)
        spent = statistics.median(cpu[1:])
        rows.append((orders, f"{spent:.2f}", f"{spent / THREADS:.2f}", f"{statistics.median(wall[1:]):.2f}"))
    return Table(
        f"Preparing a request of {n} new JPEGs of {_SIZE[0]} x {_SIZE[1]} (Qwen2.5-VL's processor, {THREADS} threads)",
        ("orders of a sample", "CPU time, ms", f"by {THREADS}, ms", "wall, ms"),
        rows,
        f"CPU time of all threads together; divided by {THREADS}, it is what the wall cannot be less than. Whatever else runs on "
        f"the machine adds to the wall. Goal: at most {GOAL:g} ms of the wall.",
    )


def _stages(processor: Any) -> Table:
    sources = [source for place in range(10) for source in _orders(f"stages {place}", COUNTS[0])[0].images]
    for source in sources:
        assert source.load()
    stages: dict[str, Callable[[Any], Any]] = {
        "decoding": lambda source: source.load(),
        "resizing": ImageCache("protocol").prepare,
        "image processor": lambda image: processor.image_processor([[image]], return_tensors="pt"),
    }
    rows = [(stage, f"{cost:.2f}") for stage, cost in stage_costs(sources, stages).items()]
    return Table("A new JPEG on its way to the model (Qwen2.5-VL's processor)", ("stage", "ms of CPU time a picture"), rows)


def _row(model: Any, processor: Any, n: int, plan: Plan) -> tuple[object, ...]:
    prepare = Preparation(model, processor, Conversation(processor, "qwen2.5-vl-3b"), "protocol")
    known = _orders("known", n)
    for _ in range(3):  # of each kind of batch the first is made both ways
        prepare(known)
    made = {number: _orders(f"new {number}", n) for number in range(-1, plan.rounds)}
    shown = [[prepare.images.get(source).image for source in request.images] for request in known]
    prompts = [prepare._conversation.prompt(request.question, n) for request in known]
    for requests in made.values():
        for source in requests[0].images:
            assert source.load()  # so that making the file is not timed

    def pictures(number: int) -> None:
        fresh = Preparation(model, processor, Conversation(processor, "qwen2.5-vl-3b"), "protocol")
        fresh._parts.of(made[number], {"return_tensors": "pt"})

    variants: dict[str, Callable[[int], object]] = {
        PLAIN: lambda _: processor(text=list(prompts), images=shown, padding=True, padding_side="left", return_tensors="pt"),
        REMEMBERED: lambda number: prepare([request.reordered(request.permutation.shifted(1)) for request in known]),
        NEW: lambda number: prepare(made[number]),
        "pictures": pictures,
    }
    timing = take_turns(variants, plan.rounds)
    each = {name: f"{1e3 * timing.median(name) / ORDERS:.2f}" for name in variants}
    return n, each[PLAIN], each[REMEMBERED], timing.ratio(REMEMBERED, PLAIN), each[NEW], each["pictures"]


def _orders(seed: str, n: int, orders: int = ORDERS) -> list[Request]:
    """A sample in several orders, the first in order of its pictures."""
    names = identifiers("1..", n)
    images = tuple(Photo(f"preparing/{seed}/{n}/{index}") for index in range(n))
    sample = Sample(id=seed, images=images, caption=f"two people next to a red bicycle, {seed}", gold=0)
    first = Request.of(sample, Permutation.identity(n), question("retrieval", sample.caption, names), names)
    if orders <= n:
        return [first.reordered(first.permutation.shifted(shift)) for shift in range(orders)]
    return [first.reordered(order) for order in first.permutation.random_orders(orders)]
