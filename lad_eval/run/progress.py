"""Progress of a run: a bar on a terminal, an occasional line in a log, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lad_eval.terminal import visible

SECONDS_BETWEEN_LINES = 30.0

Advance = Callable[[int], None]


@contextmanager
def progress(
    label: str, total: int, done: int = 0, *, shown: bool = True, unit: str = "requests", whole: Callable[[], str] | None = None
) -> Iterator[Advance]:
    """Yields a function to call with the number of units done since the last call; writes to stderr only.

    Args:
        label: what is being done.
        total: units in all.
        done: units that were done before.
        shown: False shows nothing.
        unit: what is counted, in the plural; "bytes" are shown as kB, MB, GB.
        whole: text on the progress of the whole that this is a part of.
    """
    if not shown or done >= total:
        yield lambda count: None
    elif sys.stderr.isatty():
        with _bar(label, total, done, unit, whole) as advance:
            yield advance
    else:
        yield _lines(label, total, done, unit, whole)


@contextmanager
def _bar(label: str, total: int, done: int, unit: str, whole: Callable[[], str] | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if not task.speed else f"{_amount(task.speed, unit)}/s")

    class Whole(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"· {whole()}" if whole else "", style="dim")

    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(table_column=Column(ratio=1)),
        (DownloadColumn if unit == "bytes" else MofNCompleteColumn)(table_column=Column(no_wrap=True)),
        Rate(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(elapsed_when_finished=True),
        *([Whole(table_column=Column(no_wrap=True))] if whole else []),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=60) as bar:
        task = bar.add_task(escape(visible(label)), total=total, completed=done)
        yield lambda count: bar.advance(task, count)


def _lines(label: str, total: int, done: int, unit: str, whole: Callable[[], str] | None) -> Advance:
    start = last = time.monotonic()
    before = done

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        now = time.monotonic()
        if now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = (done - before) / (now - start)
        left = (total - done) / rate if rate else 0.0
        so_far = f"{_amount(done, unit)}/{_amount(total, unit)}" if unit == "bytes" else f"{done}/{total} {unit}"
        rest = f"; {visible(whole())}" if whole else ""
        sys.stderr.write(f"{visible(label)}: {so_far}, {_amount(rate, unit)}/s, {left / 60:.0f} min left{rest}\n")

    return advance


def _amount(count: float, unit: str) -> str:
    if unit != "bytes":
        return f"{count:.1f}"
    for size, sign in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {sign}"
    return f"{count:.0f} B"


@dataclass(frozen=True)
class Portion:
    """Requests that are run under one label.

    Attributes:
        label: as its progress is labelled.
        run: the run that it belongs to.
        kind: of requests that take about the same time per unit of work: evidence, or replies of one decoding.
        requests: their number, including those that may be stored already; with several processes roughly the share of one.
        work: of one request, in units that its time is proportional to: images.
    """

    label: str
    run: str
    kind: str
    requests: int
    work: int


class Overall:
    """Counts down the work of several runs.

    The pace of every kind of request is measured as it runs; for a kind that has not run yet there is none, and the time left is
    then shown as at least that of the others. Stored requests count as done without taking time.

    Args:
        portions: everything that will be run, in order.
        label: what it is all for.
        shown: False shows nothing.
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
        """Progress of one portion, like `run.progress.progress`, with the progress of the whole above it."""
        key = (label, kind)
        portion = self._portions.get(key)
        if portion is None:
            with progress(label, total, done, shown=shown) as advance:
                yield advance
            return
        # With several processes the share of one was an estimate, and may be larger.
        portion = self._portions[key] = replace(portion, requests=total)
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
    """A rough duration for people."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
