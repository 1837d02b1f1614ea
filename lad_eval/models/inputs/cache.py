"""A least-recently-used cache bounded in bytes: a sample's permutations show the same images again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

CACHE_BYTES = 64 * 2**20
"""Capacity of each of a model's three caches: images, their pixels, and their features (on the model's device)."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteLRU(Generic[Key, Value]):
    """Drops the least recently used values when the total size exceeds the capacity; thread-safe.

    Args:
        capacity_bytes: of all values together; a value that is larger by itself is not stored.
        size_of: a value's size in bytes.
    """

    def __init__(self, capacity_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._capacity = capacity_bytes
        self._size_of = size_of
        self._held: OrderedDict[Key, Value] = OrderedDict()
        self._lock = Lock()
        self._making: dict[Key, Lock] = {}
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Key) -> Value | None:
        """The value, marked as used; None if it is not stored."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def get_or_make(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value; made and stored if it is not there. Threads that need it at the same time wait for the one that makes it."""
        if (value := self.get(key)) is not None:
            return value
        with self._lock:
            lock = self._making.setdefault(key, Lock())
        try:
            with lock:
                value = self.get(key)
                if value is None:
                    value = make()
                    self.put(key, value)
        finally:
            with self._lock:
                self._making.pop(key, None)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Stores a value, marked as used; one larger than the capacity is not stored and drops no others."""
        size = self._size_of(value)
        with self._lock:
            if key in self._held:
                self.held_bytes -= self._size_of(self._held.pop(key))
            if size > self._capacity:
                return
            self._held[key] = value
            self.held_bytes += size
            while self.held_bytes > self._capacity:
                self.held_bytes -= self._size_of(self._held.popitem(last=False)[1])

    def clear(self) -> None:
        """Drops all values."""
        with self._lock:
            self._held.clear()
            self.held_bytes = 0
