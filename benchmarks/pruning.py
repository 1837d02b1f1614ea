"""What pruning visual tokens saves: the decoder's prefill under FastV against the plain one, and against what is possible."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.models import Plan, describe, load, requests_for
from benchmarks.report import Table
from benchmarks.timer import Ratio, Timing, take_turns
from lad_eval.attention.pruning.fastv import FastV

PLAIN = "plain"
LAYER = 2


def run(plan: Plan) -> list[Table]:
    return [_table(name, plan) for name in plan.models]


def _pruners(visual: int, depth: int) -> list[FastV]:
    """What is measured; before the second layer of a decoder that has no third."""
    layer = min(LAYER, depth - 1)
    numbers: list[int | float] = [1.0, 0.5, 0.25, min(128, visual // 8)]
    return [*(FastV(keep=keep, layer=layer) for keep in numbers), FastV(keep=0.25, layer=layer, how="mask")]


def _table(name: str, plan: Plan) -> Table:
    """Prefills by the decoder alone, from embeddings that are ready, with the cache that generation would go on from."""
    model = load(name, plan, batch_size=1)
    batch = model._prepare(requests_for(plan.images, 1, seed="pruning", style="A.."))
    network, layout = model.model, batch.layout
    embeddings = network.get_input_embeddings()(layout.ids.to(network.device)).detach()
    visual, length, depth = int(layout.visual.sum()), layout.length, len(network.get_decoder().layers)
    pruners = _pruners(visual, depth)
    cached: dict[str, int] = {}

    @torch.inference_mode()
    def prefill(tokens: int, label: str, _: int) -> None:
        cache = network.get_decoder()(inputs_embeds=embeddings[:, :tokens], use_cache=True).past_key_values
        cached[label] = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)

    def pruned(pruner: FastV, number: int) -> None:
        with pruner.applied(network, layout):
            prefill(length, pruner.label, number)

    remaining = {pruner.label: length - visual + _kept(pruner, visual) for pruner in pruners}
    short = {label: f"{tokens} tokens" for label, tokens in remaining.items()}
    variants: dict[str, Callable[[int], Any]] = {PLAIN: partial(prefill, length, PLAIN)}
    variants |= {pruner.label: partial(pruned, pruner) for pruner in pruners}
    variants |= {short[label]: partial(prefill, tokens, short[label]) for label, tokens in remaining.items()}
    timing = take_turns(variants, plan.rounds)
    rows: list[tuple[object, ...]] = [(PLAIN, f"{timing.median(PLAIN):.3f}", "1.00", "1.00", "", "1.00")]
    for pruner in pruners:
        label = pruner.label
        gains = pruner.how == "drop" and remaining[label] < length
        rows.append(
            (
                label,
                f"{timing.median(label):.3f}",
                timing.ratio(label, PLAIN),
                Ratio([1 / ratio for ratio in reversed(timing.ratio(label, PLAIN).rounds)]),
                _possible(timing, short[label], pruner.layer / depth) if gains else "",
                f"{cached[label] / cached[PLAIN]:.2f}",
            )
        )
    return Table(
        f"A pruned prefill ({describe(name, plan)}, {visual} visual tokens of {length}, decoder alone, batch 1)",
        ("tokens", "seconds", "time by plain", "times faster", "possible", "KV cache by plain"),
        rows,
        f"Tokens leave before layer {pruners[0].layer}. Possible: layers below at the whole length, others at the shorter "
        "one, by plain prefills of both. Goals: keep=1.0 at most 1.03 of plain, others within 10 % of what is possible.",
    )


def _kept(pruner: FastV, visual: int) -> int:
    return int(pruner.keep * visual) if pruner.is_share else int(pruner.keep)


def _possible(timing: Timing, short: str, whole: float) -> Ratio:
    """Times faster, where a share `whole` of the layers works on all tokens and the others do on fewer."""
    pairs = zip(timing.seconds[PLAIN], timing.seconds[short], strict=True)
    return Ratio(sorted(plain / (whole * plain + (1 - whole) * fewer) for plain, fewer in pairs))
