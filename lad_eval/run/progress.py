"""How far a run is: a bar on a terminal, a line now and then in a log, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lad_eval.terminal import visible

SECONDS_BETWEEN_LINES = 30.0

Advance = Callable[[int], None]


@contextmanager
def progress(
    label: str, total: int, done: int = 0, *, shown: bool = True, unit: str = "requests", whole: Callable[[], str] | None = None
) -> Iterator[Advance]:
    """Yields a function that is told how many more units were done; writes to stderr only.

    Args:
        label: what is being done.
        total: units in all.
        done: those of them that were done before.
        shown: False keeps silent.
        unit: what is counted, in the plural; "bytes" are shown as kB, MB, GB.
        whole: says how far the whole is that this is a part of.
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
