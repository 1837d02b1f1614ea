"""Table 2: what an answer costs in time and memory, measured on the model itself."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lad_eval.models.base import VLM
from lad_eval.tasks.request import Request
from lad_eval.tasks.task import Task

QUERIES = 16
ROUNDS = 3


@dataclass(frozen=True)
class Cost:
    """Of one kind of answer with N images; medians of rounds that took turns.

    Attributes:
        seconds: per query, preparation included.
        ratio: of `seconds` to the plain answer's, the median of the rounds' ratios.
        peak_bytes: greatest memory of the GPU during the rounds; None where there is no GPU.
    """

    candidates: int
    kind: str
    seconds: float
    ratio: float
    peak_bytes: int | None

    def document(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def measure(model: VLM, task: Task, *, queries: int = QUERIES, rounds: int = ROUNDS) -> list[Cost]:
    """Cost of a plain answer (one greedy token) and of an answer with evidence, on samples that were not seen before.

    Each round takes new samples, so that no picture's features are remembered, and the two kinds take turns in going first.
    """
    samples = itertools.cycle(task.samples("test", queries * (rounds + 1)))
    order = task.orders[0]
    batches = [[task.request(s, order) for s in itertools.islice(samples, queries)] for _ in range(rounds + 1)]
    kinds: dict[str, Callable[[list[Request]], object]] = {
        "vanilla": lambda requests: model.generate(requests, max_new_tokens=1),
        "with evidence": model.evidence,
    }
    for answer in kinds.values():  # a first call pays for what later calls find ready
        answer(batches[0])
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    peaks: dict[str, list[int | None]] = {kind: [] for kind in kinds}
    for number, requests in enumerate(batches[1:]):
        for kind in sorted(kinds, reverse=bool(number % 2)):
            spent, peak = _timed(kinds[kind], requests)
            seconds[kind].append(spent / len(requests))
            peaks[kind].append(peak)
    return [
        Cost(
            task.candidates,
            kind,
            statistics.median(seconds[kind]),
            statistics.median(a / b for a, b in zip(seconds[kind], seconds["vanilla"], strict=True)),
            max((p for p in peaks[kind] if p is not None), default=None),
        )
        for kind in kinds
    ]


def _timed(answer: Callable[[list[Request]], object], requests: list[Request]) -> tuple[float, int | None]:
    import torch

    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    answer(requests)
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started, torch.cuda.max_memory_allocated() if gpu else None
