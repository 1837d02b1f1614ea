"""What looking costs: a pass with the recorder open against a plain forward pass, and against eager with output_attentions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.memory import extra_bytes
from benchmarks.models import Plan, describe, load, requests_for
from benchmarks.report import Table
from benchmarks.timer import take_turns
from lad_eval.models.huggingface import HuggingFaceVLM

PLAIN, EVIDENCE, AGAIN, EAGER = "plain forward, sdpa", "evidence", "evidence, pictures seen before", "eager, output_attentions"
VARIANTS = (PLAIN, EVIDENCE, AGAIN, EAGER)


def run(plan: Plan) -> list[Table]:
    return [_table(name, plan) for name in plan.models]


def passes(name: str, plan: Plan, variants: Sequence[str] = VARIANTS) -> tuple[dict[str, Callable[[int], Any]], int]:
    """A function for every variant, all on one prompt, and the prompt's tokens.

    The plain pass is the model's own forward on tensors that are ready; the evidence pass begins with the same tensors and also
    scores the candidates. Letters name the candidates, so that one pass is all.
    """
    made: dict[str, Callable[[int], Any]] = {}
    model = load(name, plan, batch_size=1)
    batch = model._prepare(requests_for(plan.images, 1, seed="pass", style="A.."))
    for variant in variants:
        if variant in (EVIDENCE, AGAIN):
            made[variant] = _evidence(model, batch, seen=variant == AGAIN)
        else:
            made[variant] = _forward(model, batch, eager=variant == EAGER)
    return made, int(batch.inputs["input_ids"].shape[1])


def _forward(model: HuggingFaceVLM, batch: Any, *, eager: bool) -> Callable[[int], Any]:
    inputs, network = model._to_device(batch.inputs), model.model

    @torch.inference_mode()
    def forward(_: int) -> None:
        network.set_attn_implementation("eager" if eager else "sdpa")
        network(**inputs, use_cache=False, logits_to_keep=1, output_attentions=eager)
        network.set_attn_implementation("sdpa")

    return forward


def _evidence(model: HuggingFaceVLM, batch: Any, *, seen: bool) -> Callable[[int], Any]:
    def look(_: int) -> Any:
        if not seen:
            model._features.clear()
        return model._pass(batch)

    return look


def _table(name: str, plan: Plan) -> Table:
    runs, length = passes(name, plan)
    timing = take_turns(runs, plan.rounds)
    del runs
    extra = {variant: extra_bytes(variant, name, plan) for variant in VARIANTS}
    rows = [
        (
            variant,
            f"{timing.median(variant):.3f}",
            timing.ratio(variant, PLAIN),
            f"{extra[variant] / 2**20:.0f}",
            f"{extra[variant] / extra[PLAIN]:.2f}",
        )
        for variant in VARIANTS
    ]
    return Table(
        f"One pass with evidence ({describe(name, plan)}, {length} tokens, {plan.images} images, batch 1)",
        ("pass", "seconds", "time by plain", "extra peak MiB", "memory by plain"),
        rows,
        "Goals: evidence at most 1.03 of the plain pass's time and 1.02 of its extra peak memory.",
    )
