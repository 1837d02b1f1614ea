"""Append-only logs: files of lines with checksums, a header that says what produced the rows, then one row per line.

A batch is on the disk when `append` returns. A process that is killed at any moment leaves at most one incomplete line; its
checksum is wrong, and `repair` removes it. Each of several processes writes its own file, see `rank_path`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Generic, TypeVar

from lad_eval.errors import DamagedError, UserError
from lad_eval.files.atomic import temporary_path
from lad_eval.files.documents import CHECKSUM
from lad_eval.files.lines import is_sealed, opened, salt_of, sealed

_LOG = logging.getLogger(__name__)
_SUFFIX = ".jsonl"

Header = TypeVar("Header")
LogRow = Mapping[str, Any]


@dataclass
class Contents(Generic[Header]):
    """The content of a log.

    Attributes:
        header: None if the file has no complete line.
        rows: the complete rows, in order, as parsed from JSON.
        damaged: numbers of the lines, from 1, that are incomplete or have a wrong checksum.
        cut: whether the last of those has no line break: a kill cut it off, or another process is writing it.
        end: bytes up to the end of the last complete line, without its line break.
        size: bytes in all.
    """

    header: Header | None = None
    rows: list[LogRow] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    cut: bool = False
    end: int = 0
    size: int = 0


def rank_path(folder: Path, name: str, rank: int | None) -> Path:
    """The file that a process appends to: `<name>.jsonl`, or `<name>.rank<rank>.jsonl` with several processes."""
    return folder / (f"{name}{_SUFFIX}" if rank is None else f"{name}.rank{rank}{_SUFFIX}")


def rank_paths(folder: Path, name: str) -> list[Path]:
    """The existing files: that of a single process or the joined one, then those of the ranks in order."""
    ranks = {path: path.name[len(name) + len(".rank") : -len(_SUFFIX)] for path in folder.glob(f"{name}.rank*{_SUFFIX}")}
    in_order = sorted((path for path, rank in ranks.items() if rank.isdigit()), key=lambda path: int(ranks[path]))
    return [path for path in (rank_path(folder, name, None), *in_order) if path.exists()]


def read_log(
    path: Path, header_of: Callable[[dict[str, Any], Path], Header], is_row: Callable[[LogRow, Header], bool]
) -> Contents[Header]:
    """Header and rows of a log, complete lines only.

    Args:
        path: of the log.
        header_of: the header from JSON; raises DamagedError if it is not one.
        is_row: whether a row is valid below this header.

    Raises:
        DamagedError: there are lines below a header that cannot be read.
        OSError: the file cannot be read.
    """
    contents: Contents[Header] = Contents()
    salt, must = "", False
    with path.open("rb") as file:  # line by line, so that only the rows are in memory
        for number, whole in enumerate(file, start=1):
            line = whole.removesuffix(b"\n")
            start, contents.size = contents.size, contents.size + len(whole)
            if not line:
                continue
            if contents.header is None:
                document = opened(line)
                if document is None:
                    if line != whole:  # otherwise the header was cut off by a kill
                        raise DamagedError(
                            f"{path}: its first line, which says what produced the rows, is damaged; move it away and run again."
                        )
                    contents.damaged.append(number)
                    contents.cut = True
                    continue
                document.pop(CHECKSUM, None)
                contents.header = header_of(document, path)
                salt, must = salt_of(document), is_sealed(line)
            else:
                document = opened(line, salt, must=must)
                if document is None or not is_row(document, contents.header):
                    contents.damaged.append(number)
                    contents.cut = line == whole
                    continue
                contents.rows.append(document)
            contents.end = start + len(line)
    return contents


def append(path: Path, header: Mapping[str, Any], rows: Iterable[LogRow]) -> None:
    """Appends rows to a log, and the header first if it is missing or empty; afterwards all are on the disk, or none.

    Raises:
        ValueError: a value is not JSON, such as NaN.
        UserError: the disk is full or fails; nothing stored before is lost, and the log can still be appended to.
    """
    content = _lines(header, rows)
    with storage_errors(path):
        size = path.stat().st_size if path.exists() else 0
        try:
            _put(path, content if size else sealed(header) + content)
        except BaseException:  # Ctrl-C too
            # Half a batch must not stay: the next line would be appended to half a line.
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            raise
        if not size:
            sync(path.parent)


def write_log(path: Path, header: Mapping[str, Any], rows: Iterable[LogRow]) -> None:
    """Replaces a log by one with these rows, atomically.

    Raises:
        ValueError: a value is not JSON, such as NaN.
        UserError: the disk is full or fails; the old log is unchanged.
    """
    content = sealed(header) + _lines(header, rows)
    with storage_errors(path):
        with temporary_path(path) as temporary:
            _put(temporary, content)
        sync(path.parent)


def repair(path: Path, contents: Contents[Header]) -> None:
    """Removes everything after the last complete line of a log that no other process writes, and reports all damage.

    Raises:
        UserError: the file cannot be written to.
    """
    if contents.size and contents.end == 0:
        _LOG.warning("%s: its only line was cut off and is removed.", path)
    elif contents.damaged:
        _LOG.warning("%s: %s; the requests are run again.", path, left_out(contents.damaged))
    if contents.size != (contents.end + 1 if contents.end else 0):  # one line break, or nothing at all
        with storage_errors(path):
            os.truncate(path, contents.end)
            if contents.end:
                _put(path, b"\n")


def warn_of_damage(path: Path, contents: Contents[Header]) -> bool:
    """Reports the damaged lines of a log that another process may be writing; returns whether there are any."""
    damaged = contents.damaged[:-1] if contents.cut else contents.damaged
    if damaged:
        _LOG.warning("%s: %s; the requests are run again.", path, left_out(damaged))
    return bool(damaged)


def set_aside(path: Path, error: DamagedError) -> None:
    """Renames a file that is damaged as a whole, and reports it.

    Raises:
        UserError: it cannot be renamed.
    """
    target = next(p for n in count() if not (p := path.with_name(f"{path.name}.damaged{n or ''}")).exists())
    with storage_errors(path):
        path.replace(target)
    problem = str(error).partition(";")[0]
    _LOG.warning("%s; it is set aside as %s, and its requests are run again.", problem, target.name)


def left_out(damaged: Sequence[int]) -> str:
    """Text about damaged lines, by their numbers."""
    many = len(damaged) > 1
    numbers = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
    return f"line{'s' if many else ''} {numbers} {'are' if many else 'is'} damaged and left out"


def sync(path: Path) -> None:
    """Flushes a file, or a folder's list of files, to the disk, so that it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot do this for a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_errors(path: Path, what: str = "write") -> Iterator[None]:
    """Turns errors of the operating system into one line for the user.

    Raises:
        UserError: instead of an OSError in the block.
    """
    try:
        yield
    except OSError as error:
        fault = f"Cannot {what} {path}: {error.strerror or error}. What is stored there is safe;"
        raise UserError(f"{fault} free the disk, set the permissions, or choose another folder.") from error


def _lines(header: Mapping[str, Any], rows: Iterable[LogRow]) -> bytes:
    salt = salt_of(header)
    return b"".join(sealed(row, salt) for row in rows)


def _put(path: Path, content: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
