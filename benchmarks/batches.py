"""Time against the batch size."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.models import Plan, describe, load, requests_for
from benchmarks.report import Table
from benchmarks.timer import take_turns
from lad_eval.models.huggingface import HuggingFaceVLM

SIZES = (1, 2, 4, 8, 16, 32)


def run(plan: Plan) -> list[Table]:
    return [_table(name, plan) for name in plan.runs if name != "scaled"]


def _table(name: str, plan: Plan) -> Table:
    sizes = [size for size in SIZES if size <= min(plan.batch, 8 if name == "middle" else plan.batch)]
    loaded = load(name, plan)

    def answering(size: int) -> Callable[[int], object]:
        model = HuggingFaceVLM(loaded.model, loaded.processor, name=name, weights="random", batch_size=size)
        return lambda number: model.evidence(requests_for(4, sizes[-1], seed=f"{size}/{number}"))

    timing = take_turns({str(size): answering(size) for size in sizes}, plan.rounds)
    rows = [(size, f"{sizes[-1] / timing.median(str(size)):.1f}", timing.ratio(str(size), "1")) for size in sizes]
    return Table(
        f"Time against the batch size ({describe(name, plan)}, N = 4, {sizes[-1]} requests, new pictures in each)",
        ("batch", "requests a second", "time by batch 1"),
        rows,
    )
