"""Work on several items at once, whose results are handed out as soon as they are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(items: Iterable[T], work: Callable[[T], R], workers: int, stop: Callable[[], None]) -> Iterator[list[R]]:
    """Yields `work(item)` of every item in the order in which they are done; those that are done at the same time together.

    After a failure no item is begun; those that are in progress are finished and yielded before it is raised. The threads are
    daemons, so that a program that is interrupted does not wait for a server.

    Args:
        items: taken one by one as workers become free; none of them, and no result, is None.
        work: called in the workers' threads.
        workers: number of threads.
        stop: called when the iterator is closed early, to end pauses in `work`.
    """
    waiting, lock, quitting = iter(items), Lock(), Event()
    done: SimpleQueue[R | BaseException | None] = SimpleQueue()

    def run() -> None:
        try:
            while not quitting.is_set():
                with lock:
                    item = next(waiting, None)
                if item is None:
                    return
                done.put(work(item))
        except BaseException as error:  # raised again where the results are taken
            quitting.set()
            done.put(error)
        finally:
            done.put(None)

    for number in range(workers):
        Thread(target=run, name=f"request-{number}", daemon=True).start()
    running, failure = workers, None
    try:
        while running:
            results: list[R] = []
            for entry in _arrived(done):
                if entry is None:
                    running -= 1
                elif isinstance(entry, BaseException):
                    failure = failure or entry
                else:
                    results.append(entry)
            if results:
                yield results
        if failure is not None:
            raise failure
    finally:
        if running:
            quitting.set()
            stop()


def _arrived(queue: SimpleQueue[T]) -> Iterator[T]:
    """Waits for an entry, then takes all that are there."""
    yield queue.get()
    with suppress(Empty):
        while True:
            yield queue.get_nowait()
