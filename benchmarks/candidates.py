"""What candidates cost: N = 12, whose names have two digits, against N = 9; and time against N."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.models import Plan, describe, load, requests_for, tokens
from benchmarks.report import Table
from benchmarks.timer import take_turns

COUNTS = (2, 4, 8, 9, 12)


def run(plan: Plan) -> list[Table]:
    return [_table(name, plan) for name in plan.models]


def _table(name: str, plan: Plan) -> Table:
    model = load(name, plan, batch_size=1)

    def answering(n: int) -> Callable[[int], object]:
        # New pictures every round: none is known from the round before.
        return lambda number: model.evidence(requests_for(n, 1, seed=number))

    timing = take_turns({str(n): answering(n) for n in COUNTS}, plan.rounds)
    length = {n: tokens(model, requests_for(n, 1, seed="length")) for n in COUNTS}
    passes = {n: int(model.evidence(requests_for(n, 1, seed="passes")).forward_passes[0]) for n in COUNTS}
    rows = [
        (
            n,
            length[n],
            passes[n],
            f"{timing.median(str(n)):.3f}",
            timing.ratio(str(n), "4"),
            timing.ratio(str(n), "9", per=length[n] / length[9]),
        )
        for n in COUNTS
    ]
    return Table(
        f"Time against the number of candidates ({describe(name, plan)}, batch 1, identifiers `1..`)",
        ("N", "tokens", "passes", "seconds", "time by N = 4", "time a token by N = 9"),
        rows,
        "From N = 10 on, a second pass of one token per prefix goes on from the cache of the first. "
        "Goal: N = 12 at most 1.15 of N = 9 a token.",
    )
