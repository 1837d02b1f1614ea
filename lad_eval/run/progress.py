"""How far a run is: a bar on a terminal, a line now and then in a log, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 30.0

Advance = Callable[[int], None]


@contextmanager
def progress(label: str, total: int, done: int = 0, *, shown: bool = True) -> Iterator[Advance]:
    """Yields a function that is told how many more requests were answered; writes to stderr only.

    Args:
        label: what is being done.
        total: requests in all.
        done: those of them that were answered before.
        shown: False keeps silent.
    """
    if not shown or done >= total:
        yield lambda count: None
    elif sys.stderr.isatty():
        with _bar(label, total, done) as advance:
            yield advance
    else:
        yield _lines(label, total, done)


@contextmanager
def _bar(label: str, total: int, done: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if not task.speed else f"{task.speed:.1f}/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=60) as bar:
        task = bar.add_task(label, total=total, completed=done)
        yield lambda count: bar.advance(task, count)


def _lines(label: str, total: int, done: int) -> Advance:
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
        sys.stderr.write(f"{label}: {done}/{total} requests, {rate:.1f}/s, {left / 60:.0f} min left\n")

    return advance
