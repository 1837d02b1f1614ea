"""Variants take turns; what is told is the median of the ratios of neighbours, and how far they spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of every variant, round by round."""

    seconds: Mapping[str, list[float]]

    def median(self, variant: str) -> float:
        return statistics.median(self.seconds[variant])

    def ratio(self, variant: str, baseline: str, *, per: float = 1.0) -> Ratio:
        """Seconds of a variant by those of the baseline in the same round, divided by `per`, a ratio of amounts of work."""
        rounds = zip(self.seconds[variant], self.seconds[baseline], strict=True)
        return Ratio(sorted(ours / theirs / per for ours, theirs in rounds))


@dataclass(frozen=True)
class Ratio:
    """Ratios of all rounds, ascending."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def __str__(self) -> str:
        if len(self.rounds) == 1:
            return f"{self.median:.2f}"
        low, _, high = statistics.quantiles(self.rounds, method="inclusive")
        return f"{self.median:.2f} ({low:.2f}-{high:.2f})"


def take_turns(variants: Mapping[str, Callable[[int], object]], rounds: int, *, warm: bool = True) -> Timing:
    """Times every variant once a round; each is given the round's number, and if `warm` runs before, untimed, with round -1."""
    for run in variants.values() if warm else ():
        run(-1)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        for name, run in variants.items():
            started = now()
            run(number)
            seconds[name].append(now() - started)
    return Timing(seconds)


def stage_costs(items: Sequence[object], stages: Mapping[str, Callable[[Any], Any]]) -> dict[str, float]:
    """Milliseconds of CPU time an item by stage; each stage works on what the one before made, item by item, as in a run."""
    seconds = dict.fromkeys(stages, 0.0)
    for item in items:
        result: Any = item
        for stage, work in stages.items():
            started = time.process_time()
            result = work(result)
            seconds[stage] += time.process_time() - started
    return {stage: 1e3 * spent / len(items) for stage, spent in seconds.items()}


def now() -> float:
    """Seconds on the clock: of the wall once the GPU has done what it was told; without a GPU, of this process's own CPU time.

    CPU time (of all threads together) does not see that a machine is shared with others.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
