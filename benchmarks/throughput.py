"""How many requests of the embedded tasks are answered in a second, and where the time goes."""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks.models import Plan, describe, load
from benchmarks.report import Table
from benchmarks.stages import Stages
from benchmarks.timer import take_turns
from lad_eval.attention.recorder import Recorder
from lad_eval.evidence.store import EvidenceStore
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.models.inputs import images, preparation
from lad_eval.run.collect import collect
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.sources.scenes import Scene

TASKS = ("scenes_random_n4", "scenes_adversarial_n8")
OTHER = "everything else"


def run(plan: Plan) -> list[Table]:
    return [_table(task, plan) for task in TASKS] if plan.device == "cpu" else []


def places(model: HuggingFaceVLM) -> list[tuple[Any, str, str]]:
    """The functions that are timed."""
    network = model.model.model
    return [
        (Scene, "load", "drawing pictures"),
        (images.ImageCache, "prepare", "resizing pictures"),
        (type(model.processor.image_processor), "preprocess", "image processor"),
        (type(model.processor), "__call__", "text and tokens"),
        (network.visual, "forward", "vision tower"),
        (network, "get_rope_index", "rotary positions"),
        (network.language_model, "forward", "decoder"),
        (Recorder, "observe", "recorder"),
        (Recorder, "attention", "recorder"),
        (preparation, "image_spans", "spans"),
        (EvidenceStore, "append", "store"),
        (EvidenceStore, "finish", "store"),
    ]


def _table(name: str, plan: Plan) -> Table:
    task, loaded = load_task(name), load("tiny", plan)
    stages, requests = Stages(), 0

    def answer(_: int) -> None:
        nonlocal requests
        model = HuggingFaceVLM(loaded.model, loaded.processor, name="tiny", weights="random")
        with tempfile.TemporaryDirectory() as folder:
            methods = ("lad", "permutation-average")
            requests = len(collect(model, task, methods=methods, limit=6 * plan.samples, store=folder, show_progress=False))

    timing = take_turns({"run": answer}, plan.rounds)
    with stages.watching(*places(loaded)):
        stages.timed(OTHER, answer)(0)
    total = sum(stages.seconds.values())
    longest_first = sorted(stages.seconds.items(), key=lambda entry: -entry[1])
    rows = [(label, f"{100 * seconds / total:.1f}", f"{1e3 * seconds / requests:.2f}") for label, seconds in longest_first]
    return Table(
        f"Where the time goes ({describe('tiny', plan)}, {name}, {requests} requests)",
        ("stage", "% of time", "ms a request"),
        rows,
        f"{requests / timing.median('run'):.0f} requests a second of CPU time (median of {plan.rounds} runs).",
    )
