"""Time and memory of several ways to run a model, measured in turns, so that what slows the machine slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lad_eval.tasks.request import Request

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Timing:
    """Of one way to run a model.

    Attributes:
        seconds: per request, the median of the rounds.
        ratio: of the seconds to those of the first way, the median of the rounds' ratios.
        peak_bytes: greatest memory of the GPU during the rounds; None without a GPU.
    """

    seconds: float
    ratio: float
    peak_bytes: int | None


def time_in_turns(
    ways: Mapping[K, Callable[[Sequence[Request]], object]], batches: Sequence[Sequence[Request]]
) -> dict[K, Timing]:
    """Times every way on every batch but the first, in an order that is reversed from round to round.

    Args:
        ways: by name; ratios are to the first of them.
        batches: requests of each round. The first batch is not timed: its round pays for what later rounds find ready.
    """
    for run in ways.values():
        run(batches[0])
    seconds: dict[K, list[float]] = {name: [] for name in ways}
    peaks: dict[K, list[int]] = {name: [] for name in ways}
    for number, requests in enumerate(batches[1:]):
        for name in reversed(list(ways)) if number % 2 else list(ways):
            spent, peak = _timed(ways[name], requests)
            seconds[name].append(spent / len(requests))
            peaks[name] += [] if peak is None else [peak]
    first = seconds[next(iter(ways))]
    return {
        name: Timing(
            statistics.median(values),
            statistics.median(a / b for a, b in zip(values, first, strict=True)),
            max(peaks[name], default=None),
        )
        for name, values in seconds.items()
    }


def _timed(run: Callable[[Sequence[Request]], object], requests: Sequence[Request]) -> tuple[float, int | None]:
    import torch

    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    run(requests)
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started, torch.cuda.max_memory_allocated() if gpu else None
