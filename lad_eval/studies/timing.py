"""Time and memory of several ways to run a model, measured in alternation, so that a slow machine slows all of them."""

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
    """The timing of one way to run a model.

    Attributes:
        seconds: per request, the median of the rounds.
        ratio: of the seconds to those of the first way, as the median of the rounds' ratios.
        peak_bytes: peak GPU memory during the rounds; None without a GPU.
    """

    seconds: float
    ratio: float
    peak_bytes: int | None


def time_in_turns(
    ways: Mapping[K, Callable[[Sequence[Request]], float]], batches: Sequence[Sequence[Request]]
) -> dict[K, Timing]:
    """Times every way on every batch but the first, in an order that is reversed from round to round.

    Args:
        ways: by name, a function that runs the model on requests and returns the seconds that count, such as `wall_clock` of
            one; ratios are to the first way.
        batches: requests of each round. The first batch is a warm-up and is not timed.
    """
    import torch

    for run in ways.values():
        run(batches[0])
    gpu = torch.cuda.is_available()
    seconds: dict[K, list[float]] = {name: [] for name in ways}
    peaks: dict[K, list[int]] = {name: [] for name in ways}
    for number, requests in enumerate(batches[1:]):
        for name in reversed(list(ways)) if number % 2 else list(ways):
            if gpu:
                torch.cuda.reset_peak_memory_stats()
            seconds[name].append(ways[name](requests) / len(requests))
            if gpu:
                peaks[name].append(torch.cuda.max_memory_allocated())
    first = seconds[next(iter(ways))]
    return {
        name: Timing(
            statistics.median(values),
            statistics.median(a / b for a, b in zip(values, first, strict=True)),
            max(peaks[name], default=None),
        )
        for name, values in seconds.items()
    }


def wall_clock(run: Callable[[Sequence[Request]], object]) -> Callable[[Sequence[Request]], float]:
    """The function with its result replaced by the seconds that it took, GPU work included."""

    def timed(requests: Sequence[Request]) -> float:
        import torch

        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.synchronize()
        started = time.perf_counter()
        run(requests)
        if gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return timed
