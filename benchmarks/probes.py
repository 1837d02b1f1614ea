"""What a probe with the question's own images costs: read from the question's cache, and in a pass of its own."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.models import Plan, describe, load, requests_for, tokens
from benchmarks.report import Table
from benchmarks.timer import take_turns
from lad_eval.tasks.request import Request

ALONE, KEPT, WHOLE = "question alone", "with its probe, from the cache", "with its probe, a pass of its own"


def run(plan: Plan) -> list[Table]:
    return [_table(name, plan) for name in plan.models]


def _table(name: str, plan: Plan) -> Table:
    model, n = load(name, plan, batch_size=1), 4

    def groups(variant: str, number: int) -> list[tuple[Request, Request]]:
        """A question with new pictures, and the same with N/A in the place of its caption."""
        requests = requests_for(n, 1, seed=f"{variant} {number}")
        return [(r, replace(r, question=r.question.replace(str(r.caption), "N/A"), caption="N/A")) for r in requests]

    variants = {
        ALONE: lambda number: model.evidence([own for own, _ in groups(ALONE, number)]),
        KEPT: lambda number: list(model.probed_batches(groups(KEPT, number))),
        WHOLE: lambda number: [model.evidence(list(part)) for part in zip(*groups(WHOLE, number), strict=True)],
    }
    timing = take_turns(variants, plan.rounds)
    rows = [(variant, f"{timing.median(variant):.3f}", timing.ratio(variant, ALONE)) for variant in variants]
    length = tokens(model, requests_for(n, 1, seed="length"))
    return Table(
        f"A question and its probe without the caption ({describe(name, plan)}, {length} tokens, {n} images, batch 1)",
        ("read", "seconds", "time by the question alone"),
        rows,
        "The pictures' features are remembered, so the second of two passes has no vision tower to run. Goal: 1.10.",
    )
