"""All six methods on one task: one shared pass through lad_eval, against a run a method as the released code does it."""

from __future__ import annotations

import tempfile

from benchmarks.models import Plan, describe, load
from benchmarks.released import ReleasedWay
from benchmarks.report import Table
from benchmarks.timer import take_turns
from lad_eval.methods import make_method
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.run.collect import calibrates, collect, orders_of
from lad_eval.run.decide import Decision, PlanIndex, calibrated, decide
from lad_eval.tasks.plan import plan as request_plan
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.task import Task

METHODS = ("vanilla", "pride", "lad", "raw-attention", "purified-attention", "permutation-average")
OURS, THEIRS = "lad_eval", "as released"
TASK = "scenes_random_n4"


def run(plan: Plan) -> list[Table]:
    return [_table(name, plan) for name in plan.runs]


def ours(model: HuggingFaceVLM, task: Task, limit: int) -> dict[str, Decision]:
    """Collects with a store on the disk, then decides."""
    methods = {name: make_method(name) for name in METHODS}
    orders, calibration = orders_of(methods.values()), calibrates(methods.values())
    with tempfile.TemporaryDirectory() as folder:
        evidence = collect(model, task, methods=METHODS, limit=limit, store=folder, show_progress=False)
        index = PlanIndex.of(request_plan(task, limit=limit, orders=orders, calibration=calibration))
        return {name: decide(evidence, index, method, calibrated(evidence, index, method)) for name, method in methods.items()}


def _table(name: str, plan: Plan) -> Table:
    task = load_task(TASK)
    fast, slow = load(name, plan), load(name, plan, attention="eager", batch_size=1)
    samples = plan.samples * (8 if name == "tiny" else 1)
    answers: dict[str, dict[str, Decision]] = {}
    passes: dict[str, int] = {}

    def shared(_: int) -> None:
        # A new object each time: no picture is known from the round before.
        model = HuggingFaceVLM(fast.model, fast.processor, name=name, weights="random")
        answers[OURS] = ours(model, task, samples)

    def released(_: int) -> None:
        way = ReleasedWay(HuggingFaceVLM(slow.model, slow.processor, name=name, weights="random"))
        answers[THEIRS] = way.run(task, METHODS, samples)
        passes[THEIRS] = way.passes

    # Hundreds of passes a round: there is nothing to warm up, and a few rounds are enough.
    timing = take_turns({THEIRS: released, OURS: shared}, max(1, plan.rounds // 2), warm=False)
    passes[OURS] = len(request_plan(task, limit=samples, orders=frozenset({"identity", "cyclic"}), calibration=True))
    same = [answers[OURS][m].answers.position == answers[THEIRS][m].answers.position for m in METHODS]
    agree = sum(int(row.sum()) for row in same) / sum(len(row) for row in same)
    rows = [
        (way, passes[way], f"{timing.median(way):.1f}", timing.ratio(THEIRS, way) if way == OURS else "1.00")
        for way in (THEIRS, OURS)
    ]
    return Table(
        f"A whole run of six methods ({describe(name, plan)}, {TASK}, {samples} samples x 5 orders, 5 calibration samples)",
        ("way", "requests run", "seconds", "times faster"),
        rows,
        f"Both ways give the same answer to {100 * agree:.1f} % of questions. Goal: at least 8 times faster.",
    )
