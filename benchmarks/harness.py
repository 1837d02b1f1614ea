"""What the harness costs on top of the model: evidence of a task's requests, against the model's own forward on ready inputs."""

from __future__ import annotations

import tempfile

import torch

from benchmarks.models import Plan, describe, load
from benchmarks.report import Table
from benchmarks.timer import take_turns
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.run.collect import collect
from lad_eval.tasks.plan import plan as request_plan
from lad_eval.tasks.registry import load_task

TASK = "scenes_random_n4"
RAW, DECODER, HARNESS = "forward, pixels", "forward, features", "harness, with its store"


def run(plan: Plan) -> list[Table]:
    return [_table(plan)] if plan.device == "cpu" else []


def _table(plan: Plan) -> Table:
    task, loaded, limit = load_task(TASK), load("tiny", plan), 6 * plan.samples
    requests = request_plan(task, limit=limit, orders={"identity", "cyclic"}, calibration=False).requests

    def fresh() -> HuggingFaceVLM:
        """A new object: no picture is known from the round before."""
        return HuggingFaceVLM(loaded.model, loaded.processor, name="tiny", weights="random")

    model = fresh()
    size = model._size(requests[0])
    batches = [model._prepare(requests[start : start + size]) for start in range(0, len(requests), size)]
    pixels = [dict(batch.inputs) for batch in batches]
    with torch.inference_mode():
        features = [model._features(batch.inputs, batch.images, model._to_device) for batch in batches]

    @torch.inference_mode()
    def forward(ready: list[dict[str, object]]) -> None:
        for inputs in ready:
            loaded.model(**inputs, use_cache=False, logits_to_keep=1)

    def harness(_: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            collect(fresh(), task, methods=("permutation-average",), limit=limit, store=folder, show_progress=False)

    variants = {RAW: lambda _: forward(pixels), DECODER: lambda _: forward(features), HARNESS: harness}
    timing = take_turns(variants, plan.rounds)
    rows = [
        (name, f"{1e3 * timing.median(name) / len(requests):.2f}", timing.ratio(name, RAW), timing.ratio(name, DECODER))
        for name in variants
    ]
    return Table(
        f"The harness on top of the model ({describe('tiny', plan)}, {TASK}, {len(requests)} requests, batches of {size})",
        ("what runs", "ms a request", "by forward, pixels", "by forward, features"),
        rows,
        "Forward: the model alone on inputs that are ready, with each request's pixels, or with features in their place. The "
        "harness reads, prepares and encodes each picture once, and writes the evidence to the disk. Goal: at most 1.15 of the "
        "forward pass, which is one with pixels.",
    )
