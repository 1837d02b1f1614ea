"""A lock for work that only one process may do at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lad_eval.errors import UserError


@contextmanager
def only_process(path: Path, message: str, error: type[UserError] = UserError) -> Iterator[None]:
    """Holds a lock while the block runs; on file systems without locks it has no effect.

    The lock is released when the process ends, however it ends.

    Args:
        path: of the lock, a file in an existing folder.
        message: of the error if another process holds it.
        error: class of that error.

    Raises:
        UserError: another process holds it; of class `error`, raised without waiting.
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
