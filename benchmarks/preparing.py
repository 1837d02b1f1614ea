"""What preparing a request's inputs costs: Qwen2.5-VL's processor as it is, against inputs put together from remembered parts."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from PIL import Image as Pil
from PIL.Image import Image

from benchmarks.models import Plan
from benchmarks.report import Table
from benchmarks.timer import take_turns
from lad_eval.data.decoding import decode
from lad_eval.models.inputs.preparation import Preparation
from lad_eval.models.prompts.conversation import Conversation
from lad_eval.models.random import load_random
from lad_eval.tasks.prompts import identifiers, question
from lad_eval.tasks.request import Permutation, Request, Sample

COUNTS = (4, 8, 12)
ORDERS = 4
PLAIN, REMEMBERED, NEW = "the processor", "remembered", "new"
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
    return [
        Table(
            f"Preparing a request (Qwen2.5-VL's processor, N pictures of 336 x 336, JPEGs of {_SIZE[0]} x {_SIZE[1]})",
            ("N", "processor, ms", "remembered, ms", "by processor", f"new in {ORDERS} orders, ms", "of it pictures, ms"),
            rows,
            "Processor: its own output for pictures that are in memory at that size. Remembered: both were shown "
            f"in another order. New: JPEGs and a question that were not, a request of {ORDERS} in which they are shown; the "
            "pictures' part, decoding, resizing and the image processor, runs in several threads. "
            "Milliseconds of CPU time, of all threads together. Goals: remembered at most 2.5 ms at N = 4.",
        )
    ]


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


def _orders(seed: str, n: int) -> list[Request]:
    """A sample in several orders."""
    names = identifiers("1..", n)
    images = tuple(Photo(f"preparing/{seed}/{n}/{index}") for index in range(n))
    sample = Sample(id=seed, images=images, caption=f"two people next to a red bicycle, {seed}", gold=0)
    first = Request.of(sample, Permutation.identity(n), question("retrieval", sample.caption, names), names)
    return [first.reordered(first.permutation.shifted(shift)) for shift in range(ORDERS)]
