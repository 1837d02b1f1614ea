"""What attention between images costs: the decoder's prefill under capl and truncated, against the plain one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks.models import Plan, describe, load, requests_for
from benchmarks.report import Table
from benchmarks.timer import take_turns
from lad_eval.attention.cross_image.capl import Capl
from lad_eval.attention.cross_image.masks import OpenedRows, key_tokens, opened_rows
from lad_eval.attention.cross_image.truncated import Truncated
from lad_eval.attention.hooks import AttentionCall, observe_attention
from lad_eval.attention.layout import PromptLayout
from lad_eval.attention.spans import Spans

PLAIN = "plain"
IMAGES = 4


def run(plan: Plan) -> list[Table]:
    return [_table(name, plan) for name in plan.models]


def _table(name: str, plan: Plan) -> Table:
    """Prefills by the decoder alone, from embeddings that are ready, with the cache that generation would go on from."""
    model = load(name, plan, batch_size=1)
    network = model.model
    layout = _large_images(model._prepare(requests_for(plan.images, 1, seed="cross-image", style="A..")).layout)
    embeddings = network.get_input_embeddings()(layout.ids.to(network.device)).detach()

    @torch.inference_mode()
    def prefill(_: int) -> None:
        network.get_decoder()(inputs_embeds=embeddings, use_cache=True)

    def changed(intervention: Capl | Truncated, number: int) -> None:
        with intervention.applied(network, layout):
            prefill(number)

    variants: dict[str, Callable[[int], Any]] = {PLAIN: prefill}
    variants |= {each.label: partial(changed, each) for each in (Capl(), Capl(every=1), Truncated())}
    timing = take_turns(variants, plan.rounds)
    second = _second_pass(network, layout, embeddings)
    visual, images = int(layout.visual.sum()), layout.spans.image.shape[1]
    return Table(
        f"A prefill with attention between images ({describe(name, plan)}, {images} images, {visual} visual tokens of "
        f"{layout.length}, decoder alone, batch 1)",
        ("prefill", "seconds", "time by plain"),
        [(label, f"{timing.median(label):.3f}", "1.00" if label == PLAIN else timing.ratio(label, PLAIN)) for label in variants],
        f"The second pass of capl is of {second.index.shape[1]} tokens; its mask, one byte for each of them and each key, "
        f"takes {second.mask.nbytes / 2**20:.1f} MiB, once for all layers. Goal: capl at most 1.35 of plain.",
    )


def _large_images(layout: PromptLayout) -> PromptLayout:
    """The layout with its images taken together to `IMAGES` larger ones, where there are so many."""
    spans, count = layout.spans, layout.spans.image.shape[1]
    size = max(1, count // IMAGES)
    ranges = torch.stack([spans.image[:, ::size, 0], spans.image[:, size - 1 :: size, 1]], dim=-1)
    owner = torch.where(spans.owner >= 0, spans.owner // size, -1)
    return replace(layout, spans=Spans(ranges, ranges, owner))


@torch.inference_mode()
def _second_pass(network: Any, layout: PromptLayout, embeddings: torch.Tensor) -> OpenedRows:
    """What the first layer runs a second time."""
    owner = key_tokens(embeddings, layout.spans.owner, Capl().rho)
    made: list[OpenedRows] = []

    def note(call: AttentionCall) -> None:
        if not made and (rows := opened_rows(call, owner)) is not None:
            made.append(rows)

    with observe_attention(network, note):
        network.get_decoder()(inputs_embeds=embeddings, use_cache=False)
    return made[0]
