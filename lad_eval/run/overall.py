"""How far several runs are together, and how long the rest takes, as for `lad-eval paper`, which asks many tasks in turn."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lad_eval.run.progress import Advance, progress
from lad_eval.terminal import visible


@dataclass(frozen=True)
class Portion:
    """What will be asked under one label.

    Attributes:
        label: as its progress is labelled.
        run: the run that it belongs to.
        kind: what takes about the same time a unit of work: evidence, or one way of writing replies.
        requests: their number, those included that may turn out to be stored.
        work: of one request, in units that its time is proportional to: images.
    """

    label: str
    run: str
    kind: str
    requests: int
    work: int


class Overall:
    """Counts down the work of several runs.

    Every kind of request has a pace of its own, measured as it goes; a kind that has not come yet has none, and the time left is
    then said to be at least that of the others. What is found stored counts as done without taking time.

    Args:
        portions: everything that will be asked, in order.
        label: what it is all for.
        shown: False keeps silent.
    """

    def __init__(self, portions: Iterable[Portion], label: str, *, shown: bool) -> None:
        self._portions = {(portion.label, portion.kind): portion for portion in portions}
        self._runs = list(dict.fromkeys(portion.run for portion in self._portions.values()))
        self._label, self._shown = label, shown
        self._left: dict[tuple[str, str], int] = {key: portion.requests for key, portion in self._portions.items()}
        self._units: dict[str, float] = defaultdict(float)
        self._seconds: dict[str, float] = defaultdict(float)
        self._said = ""

    def fraction(self) -> float:
        """Share of all work that is done, 0 to 1."""
        total = sum(portion.requests * portion.work for portion in self._portions.values())
        left = sum(count * self._portions[key].work for key, count in self._left.items())
        return 1.0 if not total else 1 - left / total

    def seconds_left(self) -> tuple[float, bool] | None:
        """Seconds, and whether every kind that is left has a known pace; None before any pace is known."""
        left: dict[str, float] = defaultdict(float)
        for key, count in self._left.items():
            left[self._portions[key].kind] += count * self._portions[key].work
        known = {kind: self._seconds[kind] / self._units[kind] for kind in left if self._units[kind]}
        rest = {kind: units for kind, units in left.items() if units}
        if rest and not any(kind in known for kind in rest):
            return None
        return sum(units * known[kind] for kind, units in rest.items() if kind in known), all(kind in known for kind in rest)

    @contextmanager
    def portion(self, label: str, kind: str, total: int, done: int, *, shown: bool) -> Iterator[Advance]:
        """Progress of one portion, in the manner of `run.progress.progress`, with the state of the whole above it."""
        key = (label, kind)
        portion = self._portions.get(key)
        if portion is None:
            with progress(label, total, done, shown=shown) as advance:
                yield advance
            return
        self._left[key] = total - done
        if total > done:
            self._say(portion)
        last = time.monotonic()
        with progress(label, total, done, shown=shown, whole=self.text) as advance:

            def count(requests: int) -> None:
                nonlocal last
                now = time.monotonic()
                self._seconds[kind] += now - last
                self._units[kind] += requests * portion.work
                self._left[key] = max(self._left[key] - requests, 0)
                last = now
                advance(requests)

            yield count

    def text(self) -> str:
        """`35 % of all, about 12 min left`."""
        share = f"{100 * self.fraction():.0f} % of all"
        estimate = self.seconds_left()
        if estimate is None:
            return share
        seconds, complete = estimate
        return f"{share}, {'about' if complete else 'at least'} {duration(seconds)} left"

    def _say(self, portion: Portion) -> None:
        """A line at the beginning of each run."""
        if self._shown and portion.run != self._said:
            self._said = portion.run
            number = self._runs.index(portion.run) + 1
            sys.stderr.write(f"{visible(f'{self._label}: {portion.run} ({number} of {len(self._runs)}), {self.text()}')}\n")


def duration(seconds: float) -> str:
    """Roughly, as people say it."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
