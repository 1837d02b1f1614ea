"""Where the time of a run goes: chosen functions are timed, each without the chosen functions that it calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

from benchmarks import timer

_MISSING = object()


def now() -> float:
    """As `benchmarks.timer.now`, but without a GPU of this thread alone: pictures and the store have threads of their own."""
    return timer.now() if torch.cuda.is_available() else time.thread_time()


class _Thread(threading.local):
    """Seconds of the stages inside each stage that this thread is in."""

    def __init__(self) -> None:
        self.inside: list[float] = []


class Stages:
    """Seconds by label."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._thread = _Thread()
        self._lock = threading.Lock()

    def timed(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that does the same, and whose own time counts under the label."""

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            inside = self._thread.inside
            inside.append(0.0)
            started = now()
            try:
                return function(*args, **kwargs)
            finally:
                spent = now() - started
                alone = spent - inside.pop()
                with self._lock:
                    self.seconds[label] = self.seconds.get(label, 0.0) + alone
                if inside:
                    inside[-1] += spent

        return run

    @contextmanager
    def watching(self, *places: tuple[Any, str, str]) -> Iterator[None]:
        """Times (owner, attribute, label) while the context is open."""
        before = [(owner, name, vars(owner).get(name, _MISSING)) for owner, name, _ in places]
        try:
            for owner, name, label in places:
                setattr(owner, name, self.timed(label, getattr(owner, name)))
            yield
        finally:
            for owner, name, original in reversed(before):
                if original is _MISSING:
                    delattr(owner, name)
                else:
                    setattr(owner, name, original)
