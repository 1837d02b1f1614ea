"""What a pass costs in which the images have no order, against the plain one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.models import Plan, describe, load, requests_for, tokens
from benchmarks.report import Table
from benchmarks.timer import take_turns
from lad_eval.attention.cross_image.pine import Pine
from lad_eval.attention.cross_image.tied import Tied
from lad_eval.attention.interventions import Intervention

PLAIN = "plain"
COUNTS = (4, 8)


def run(plan: Plan) -> list[Table]:
    return [_table(name, plan) for name in plan.models]


def _table(name: str, plan: Plan) -> Table:
    model = load(name, plan, batch_size=1)

    def evidence(n: int, intervention: Intervention | None, number: int) -> None:
        with model.under(intervention):
            model.evidence(requests_for(n, 1, seed=f"{intervention} {number}", style="A.."))

    rows = []
    for n in COUNTS:
        variants: dict[str, Callable[[int], Any]] = {PLAIN: partial(evidence, n, None)}
        variants |= {each.label: partial(evidence, n, each) for each in (Tied(), Pine())}
        timing = take_turns(variants, plan.rounds)
        length = tokens(model, requests_for(n, 1, seed="length", style="A.."))
        rows += [(n, length, label, f"{timing.median(label):.3f}", timing.ratio(label, PLAIN)) for label in variants]
    return Table(
        f"A pass with evidence in which the images have no order ({describe(name, plan)}, batch 1)",
        ("N", "tokens", "pass", "seconds", "time by plain"),
        rows,
        "pine scores the images once more without rotary positions, and moves all keys for each image and head.",
    )
