"""Real sizes on a GPU: tokens a second, the share of its peak that is used, and the share of time that it waits."""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.models import Plan, describe, load, requests_for
from benchmarks.report import Table
from benchmarks.timer import take_turns
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.tasks.request import Request

ORDERS = 4
# Dense bfloat16 operations a second, from the makers' data sheets, by a part of the device's name.
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "A10": 125e12, "RTX 4090": 165e12}
UNKNOWN = "not known"


def run(plan: Plan) -> list[Table]:
    if plan.device == "cpu" and plan.layers > 2:  # on a CPU only to see that it runs
        return []
    return [_table(name, plan) for name in plan.models]


def operations(model: HuggingFaceVLM, requests: list[Request], pictures: int) -> float:
    """Multiplications and additions of the requests' forward passes: 2 for each weight and token, and the decoder's attention.

    Args:
        model: what runs.
        requests: all of one length.
        pictures: how many the vision tower encodes.
    """
    batch = model._prepare(requests[:1])
    length, text = int(batch.inputs["input_ids"].shape[1]), model.model.config.get_text_config()
    decoder = sum(weight.numel() for weight in model.model.get_decoder().parameters() if weight.dim() == 2)
    decoder -= model.model.get_input_embeddings().weight.numel()
    attention = 2 * text.num_hidden_layers * length * text.hidden_size  # of the pairs of tokens, half are in the future
    tower = getattr(model.model.model, "visual", None) or getattr(model.model.model, "vision_tower", None)
    encoder = 0.0 if tower is None else float(sum(weight.numel() for weight in tower.parameters()))
    patches = len(batch.inputs["pixel_values"].flatten(0, -2)) / len(requests[0].images)
    return float(2 * len(requests) * length * (decoder + attention) + 2 * encoder * patches * pictures)


def busy_share(run: Any, device: str) -> float | None:
    """Share of the wall's time in which kernels run on the GPU; None on a CPU."""
    if device != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        wall = time.perf_counter() - started
    kernels = [event.time_range for event in profiler.events() if event.device_type.name == "CUDA"]
    busy, last = 0.0, 0.0
    for each in sorted(kernels, key=lambda each: each.start):  # kernels of several streams overlap
        busy += max(0.0, each.end - max(each.start, last))
        last = max(last, each.end)
    return busy / 1e6 / wall


def _table(name: str, plan: Plan) -> Table:
    loaded = load(name, plan)
    samples = plan.samples * (8 if plan.device == "cuda" else 1)

    def made(number: object) -> list[Request]:
        first = requests_for(4, samples, seed=f"gpu/{number}", style="A..")
        return [each.reordered(each.permutation.shifted(shift)) for each in first for shift in range(ORDERS)]

    every = {number: made(number) for number in range(-1, plan.rounds)}
    batches = {}

    def ready(number: int) -> None:
        model = HuggingFaceVLM(loaded.model, loaded.processor, name=name, weights="random")
        size = model._size(every[number][0])
        starts = range(0, len(every[number]), size)
        batches[number] = [model._to_device(model._prepare(every[number][start : start + size]).inputs) for start in starts]

    @torch.inference_mode()
    def plain(number: int) -> None:
        for inputs in batches[number]:
            loaded.model(**inputs, use_cache=False, logits_to_keep=1)

    def evidence(number: int) -> object:
        return HuggingFaceVLM(loaded.model, loaded.processor, name=name, weights="random").evidence(every[number])

    for number in every:
        ready(number)
    timing = take_turns({"plain": plain, "lad": evidence}, plan.rounds)
    requests, seconds = every[0], timing.median("lad")
    tokens = len(requests) * int(batches[0][0]["input_ids"].shape[1])
    used = operations(loaded, requests, 4 * samples) / seconds
    peak = next((PEAKS[part] for part in PEAKS if plan.device == "cuda" and part in torch.cuda.get_device_name()), None)
    busy = busy_share(lambda: evidence(0), plan.device)
    row = (
        f"{len(requests) / seconds:.1f}",
        f"{tokens / seconds:.0f}",
        UNKNOWN if peak is None else f"{100 * used / peak:.1f} %",
        UNKNOWN if busy is None else f"{100 * (1 - busy):.1f} %",
        timing.ratio("lad", "plain"),
    )
    return Table(
        f"Evidence at a real size ({describe(name, plan)}, N = 4, {len(requests)} requests, each picture in {ORDERS} of them)",
        ("requests a second", "tokens a second", "MFU", "the GPU waits", "LAD by plain"),
        [row],
        "MFU: operations of the forward passes that are run, by the data sheet's dense bfloat16 peak. The GPU waits: the time in "
        "which no kernel runs, pictures and tokens being new. Plain: the model's forward on inputs that are ready on the device, "
        "each request's pixels included. `whole_run` compares with the released code's way. Goals: MFU at least 45 %, the GPU "
        "waits less than 5 %, LAD at most 1.03 of plain.",
    )
