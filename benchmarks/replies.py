"""Ten sampled replies against one greedy reply of the same length, and how often an image is encoded."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.models import Plan, describe, load, requests_for, tokens
from benchmarks.report import Table
from benchmarks.timer import take_turns
from lad_eval.evidence.replies import Decoding
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.tasks.request import Request

SAMPLES, N = 10, 4
GOAL = 3.0


def run(plan: Plan) -> list[Table]:
    return [_table(name, plan) for name in plan.models]


def _table(name: str, plan: Plan) -> Table:
    model = load(name, plan, batch_size=1)
    # An end that is not in the vocabulary: every reply has the same length.
    model.model.generation_config.eos_token_id = model.model.config.get_text_config().vocab_size
    length = 8 if plan.width < 512 else 64
    greedy = Decoding(max_new_tokens=length)
    sampled = Decoding(samples=SAMPLES, temperature=0.7, max_new_tokens=length)

    def write(number: int, *decodings: Decoding) -> None:
        for decoding in decodings:
            model._features.clear()
            list(model.reply_batches(requests_for(N, 1, seed=f"replies {number}"), decoding))

    alone = [Decoding(temperature=0.7, max_new_tokens=length, seed=seed) for seed in range(SAMPLES)]
    variants: dict[str, Callable[[int], object]] = {
        "1 greedy": lambda number: write(number, greedy),
        f"{SAMPLES} sampled": lambda number: write(number, sampled),
        f"{SAMPLES} sampled, one by one": lambda number: write(number, *alone),
    }
    timing = take_turns(variants, plan.rounds)
    rows = [(what, f"{timing.median(what):.3f}", timing.ratio(what, "1 greedy")) for what in variants]
    prompt = tokens(model, requests_for(N, 1, seed="replies 0"))
    encoded = _encoded(model)
    note = (
        f"Replies of {length} tokens to a prompt of {prompt}. Goal: {SAMPLES} replies at most {GOAL:g} times one. "
        f"A sample's five orders show {N} images {5 * N} times; the vision tower encodes {encoded}."
    )
    return Table(f"Sampled replies ({describe(name, plan)})", ("replies", "seconds", "time by 1 greedy"), rows, note)


def _encoded(model: HuggingFaceVLM) -> int:
    """How many images the vision tower encodes for greedy replies to a sample's five orders."""
    request = requests_for(N, 1, seed="orders")[0]
    orders: list[Request] = [request.reordered(order) for order in request.permutation.random_orders(5)]
    model._features.clear()
    encode, images = model._features._encode, 0

    def count(**arguments: object) -> object:
        nonlocal images
        images += len(arguments["image_grid_thw"])  # type: ignore[arg-type]
        assert encode is not None
        return encode(**arguments)

    model._features._encode = count
    try:
        model.generate(orders, max_new_tokens=1)
    finally:
        model._features._encode = encode
    return images
