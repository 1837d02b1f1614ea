"""One process at a time where two would write over each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lad_eval.errors import UserError


@contextmanager
def only_process(path: Path, message: str, error: type[UserError] = UserError) -> Iterator[None]:
    """Keeps other processes that take the same lock from what is done in the block; where nothing can be locked, nothing is.

    The lock of a process that ends, however it ends, is free.

    Args:
        path: of the lock, a file in a folder that is there.
        message: for a process that finds it taken.
        error: the class of what is raised.

    Raises:
        UserError: another process has it; of class `error`, at once.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise error(message) from None
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()
