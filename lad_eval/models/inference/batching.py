"""Batches: requests of similar length together, as many as fit in memory, while the next ones are prepared."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from lad_eval.errors import OutOfMemoryError

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)

# Number of tokens beyond which a larger batch is not faster (16 k on a GPU; far fewer on a CPU).
_TOKENS = {"cuda": 16_384, "cpu": 4_096}
_MOST = 64
# Batches that are prepared ahead: one slow batch, whose pictures are all new, does not stop the model.
_AHEAD = 2


def automatic_size(tokens: int, device: str) -> int:
    """Initial batch size for requests of this many tokens on a kind of device; reduced later where memory does not suffice."""
    return max(1, min(_MOST, _TOKENS.get(device, _TOKENS["cpu"]) // max(1, tokens)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the GPU or the machine ran out of memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")
    )


def free_memory() -> None:
    """Frees the memory that a failed forward pass still holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Batcher:
    """Iterates over items in batches, and remembers the batch size that fits.

    Args:
        size: initial batch size; halved whenever memory does not suffice.
        ahead: prepare the next batches in a thread while the current one runs; useful where the model runs on a GPU.
    """

    def __init__(self, size: int, *, ahead: bool = False) -> None:
        self.size = size
        self._ahead = ahead

    def run(self, items: Sequence[T], prepare: Callable[[Sequence[T]], R], use: Callable[[Sequence[T], R], Any]) -> Iterator[Any]:
        """`use(batch, prepare(batch))` for every batch, in order.

        Raises:
            OutOfMemoryError: a batch of one does not fit.
        """
        pool = ThreadPoolExecutor(max_workers=1) if self._ahead else None
        try:
            start = 0
            waiting: dict[tuple[int, int], Future[R]] = {}
            while start < len(items):
                batch = items[start : start + self.size]
                after = start + len(batch)
                ready = waiting.pop((start, len(batch)), None)
                prepared = prepare(batch) if ready is None else ready.result()
                for place in range(after, min(after + _AHEAD * self.size, len(items)), self.size) if pool else ():
                    following = items[place : place + self.size]
                    if pool and (place, len(following)) not in waiting:
                        waiting[place, len(following)] = pool.submit(prepare, following)
                fits, result = self._attempt(use, batch, prepared)
                if fits:
                    start = after
                    yield result
                else:
                    del prepared
                    for future in waiting.values():  # their batches are too large
                        future.cancel()
                    waiting.clear()
                    self._shrink(len(batch))
        finally:
            if pool:
                pool.shutdown(wait=True, cancel_futures=True)

    def _attempt(self, use: Callable[[Sequence[T], R], Any], batch: Sequence[T], prepared: R) -> tuple[bool, Any]:
        try:
            return True, use(batch, prepared)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise OutOfMemoryError(
                    "Out of memory with a single request: use a smaller model, fewer candidates, "
                    "dtype bfloat16, or a device with more memory."
                ) from error
            return False, None

    def _shrink(self, tried: int) -> None:
        # Outside the except block, where the traceback would still reference the tensors to be freed.
        self.size = max(1, min(self.size, tried) // 2)
        _log.warning("Out of memory with a batch of %d; continuing with %d.", tried, self.size)
        free_memory()


def by_length(lengths: Sequence[int], groups: Sequence[str]) -> list[int]:
    """Indices sorted by length, longest first, so that running out of memory shows at once; within a length, group by group.

    Batches of one length need no padding, and attention without a mask is faster. The items of a group share their images.
    """
    first = {group: i for i, group in reversed(list(enumerate(groups)))}
    return sorted(range(len(lengths)), key=lambda i: (-lengths[i], first[groups[i]]))
