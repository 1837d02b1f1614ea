"""Writes files so that a killed process leaves the old or the new one, never a part; removes leftover temporary files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SUFFIX = ".part"
# `.<name>.<8 characters of mkstemp>.part`; then the names of earlier versions.
_TEMPORARY = re.compile(
    r"\..+\.[a-z0-9_]{8}\.part"
    r"|\.evidence\.parquet\.new|\.replies\..+\.jsonl\.new"
    r"|\.(?:spec|plan|metrics)\.json\.\d+|\.predictions\.parquet\.\d+"
)
_SCRATCH, _ALIVE = "lad-eval-", ".alive"
_SECONDS_OLD = 60.0
"""A file this young may be one that another process has just made and not locked yet."""
_SECONDS_UNLOCKED = 24 * 3600.0
"""Where files cannot be locked, a file of this age counts as abandoned."""


@contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that becomes `path` when the block succeeds, and is removed otherwise.

    The file is locked while it is written, so that `sweep` can distinguish it from leftovers of killed processes.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:200]}.", suffix=_SUFFIX)
    temporary = Path(name)
    try:
        _lock(handle)
        # mkstemp makes files that only their owner may read; data is shared as the umask says.
        temporary.chmod(0o666 & ~_umask())
        yield temporary
        temporary.replace(path)
    except BaseException:  # Ctrl-C too: half a file must not stay
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text as `write_atomically` does."""
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file, which then replaces `path`; a missing folder is created.

    A link stays a link, and a device or pipe, such as /dev/stdout, is written to and not replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file() and not target.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder) / path.name)
            target.open("wb", buffering=0).write((Path(folder) / path.name).read_bytes())
        return
    with temporary_path(target) as temporary:
        write(temporary)


def sweep(folder: Path, name: str = "") -> int:
    """Removes temporary files that killed processes left in a folder, not in its subfolders; returns their number.

    Only regular files with names of this module are removed, and only if they are a minute old and no running
    process writes to them. Files that cannot be checked or removed stay.

    Args:
        folder: of this package; a user's folder only together with `name`.
        name: remove only temporary files of this file.
    """
    swept = 0
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if path.name.startswith(f".{name}") and _TEMPORARY.fullmatch(path.name) and _abandoned(path):
                with contextlib.suppress(OSError):
                    path.unlink()
                    swept += 1
    return swept


class Scratch(tempfile.TemporaryDirectory[str]):
    """A temporary folder for a block or an object; leftovers of killed processes are removed when one is created."""

    def __init__(self, name: str) -> None:
        """Creates the folder; `name`, which says what it is for, is part of its name."""
        _sweep_scratch()
        super().__init__(prefix=f"{_SCRATCH}{name}-")
        handle = os.open(Path(self.name) / _ALIVE, os.O_RDWR | os.O_CREAT, 0o600)
        _lock(handle)
        weakref.finalize(self, os.close, handle)


def _sweep_scratch() -> None:
    with contextlib.suppress(OSError):
        for path in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
            if not path.is_symlink() and _is_mine(path) and _abandoned(path / _ALIVE):
                shutil.rmtree(path, ignore_errors=True)


def _is_mine(path: Path) -> bool:
    return not hasattr(os, "geteuid") or path.lstat().st_uid == os.geteuid()


def _abandoned(path: Path) -> bool:
    try:
        if path.is_symlink() or not path.is_file():
            return False
        age = time.time() - path.stat().st_mtime
        if age < _SECONDS_OLD:
            return False
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        locked = _lock(handle)
    finally:
        os.close(handle)
    return age > _SECONDS_UNLOCKED if locked is None else locked


def _lock(handle: int) -> bool | None:
    """Locks an open file until it is closed: True if that worked, False if another process holds it, None without locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
