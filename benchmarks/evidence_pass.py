"""What looking costs: a pass with the recorder open against a plain forward pass, and against eager with output_attentions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.memory import extra_bytes
from benchmarks.models import Plan, ask, describe, load
from benchmarks.report import Table
from benchmarks.timer import take_turns
from lad_eval.models.huggingface import HuggingFaceVLM

PLAIN, EVIDENCE, EAGER = "plain forward, sdpa", "evidence, sdpa", "eager, output_attentions"
VARIANTS = (PLAIN, EVIDENCE, EAGER)


def run(plan: Plan) -> list[Table]:
    return [_table(name, plan) for name in plan.models]


def passes(name: str, plan: Plan, variants: Sequence[str] = VARIANTS) -> tuple[dict[str, Callable[[int], Any]], int]:
    """A function for every variant, all on one prompt, and the prompt's tokens.

    The plain pass is the model's own forward on tensors that are ready; the evidence pass begins with the same tensors and also
    scores the candidates. Letters name the candidates, so that one pass is all.
    """
    made: dict[str, Callable[[int], Any]] = {}
    length = 0
    for variant in variants:
        model = load(name, plan, attention="eager" if variant == EAGER else "sdpa", batch_size=1)
        batch = model._prepare(ask(plan.images, 1, seed="pass", style="A.."))
        length = int(batch.inputs["input_ids"].shape[1])
        made[variant] = _evidence(model, batch) if variant == EVIDENCE else _forward(model, batch, variant == EAGER)
    return made, length


def _forward(model: HuggingFaceVLM, batch: Any, attentions: bool) -> Callable[[int], Any]:
    inputs = model._to_device(batch.inputs)

    @torch.inference_mode()
    def forward(_: int) -> Any:
        return model.model(**inputs, use_cache=False, logits_to_keep=1, output_attentions=attentions).logits

    return forward


def _evidence(model: HuggingFaceVLM, batch: Any) -> Callable[[int], Any]:
    return lambda _: model._forward(batch)


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
        "Goals: evidence at most 1.05 of the plain pass's time and 1.02 of its extra peak memory.",
    )
