"""Append-only logs: files of sealed lines, a header that says what made the rows, then one row per line.

A batch is on the disk when `append` returns. A process that is killed at any moment leaves at most one line that is cut off; its
checksum gives it away, and `repair` removes it. Of several processes each writes a file of its own, see `rank_path`.
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
    """A log as it was read.

    Attributes:
        header: None if the file has nothing whole in it.
        rows: the whole rows, in order, numbers as JSON has them.
        damaged: numbers of the lines that are not whole or not what was written, from 1.
        cut: the last of those has no line break: a kill cut it off, or another process is writing it now.
        end: bytes up to the end of the last whole line, its line break not counted.
        size: bytes in all.
    """

    header: Header | None = None
    rows: list[LogRow] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    cut: bool = False
    end: int = 0
    size: int = 0


def rank_path(folder: Path, name: str, rank: int | None) -> Path:
    """The file that a process appends to: `<name>.jsonl`, of several processes `<name>.rank<rank>.jsonl`."""
    return folder / (f"{name}{_SUFFIX}" if rank is None else f"{name}.rank{rank}{_SUFFIX}")


def rank_paths(folder: Path, name: str) -> list[Path]:
    """The files that there are: the joined or single process's one, then the ranks' in order."""
    ranks = {path: path.name[len(name) + len(".rank") : -len(_SUFFIX)] for path in folder.glob(f"{name}.rank*{_SUFFIX}")}
    in_order = sorted((path for path, rank in ranks.items() if rank.isdigit()), key=lambda path: int(ranks[path]))
    return [path for path in (rank_path(folder, name, None), *in_order) if path.exists()]


def read_log(
    path: Path, header_of: Callable[[dict[str, Any], Path], Header], is_row: Callable[[LogRow, Header], bool]
) -> Contents[Header]:
    """Header and rows of a log, whole lines only.

    Args:
        path: of the log.
        header_of: the header from JSON; raises DamagedError if it is not one.
        is_row: whether a row holds what a row below this header may hold.

    Raises:
        DamagedError: anything stands below a header that cannot be read.
        OSError: the file cannot be read.
    """
    contents: Contents[Header] = Contents()
    salt, must = "", False
    with path.open("rb") as file:  # line by line: the rows alone are to lie in memory
        for number, whole in enumerate(file, start=1):
            line = whole.removesuffix(b"\n")
            start, contents.size = contents.size, contents.size + len(whole)
            if not line:
                continue
            if contents.header is None:
                document = opened(line)
                if document is None:
                    if line != whole:  # and not a header that a kill cut off
                        raise DamagedError(
                            f"{path}: its first line, which says what made the rows, is damaged; move it away and run again."
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
    """Adds rows to a log, which is begun with its header if it is missing or empty; all are on the disk then, or none.

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
            # Half a batch must not stay: what is appended next would stand behind half a line.
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            raise
        if not size:
            sync(path.parent)


def write_log(path: Path, header: Mapping[str, Any], rows: Iterable[LogRow]) -> None:
    """Puts a log of these rows in the place of what is there, whole or not at all.

    Raises:
        ValueError: a value is not JSON, such as NaN.
        UserError: the disk is full or fails; what was there is unchanged.
    """
    content = sealed(header) + _lines(header, rows)
    with storage_errors(path):
        with temporary_path(path) as temporary:
            _put(temporary, content)
        sync(path.parent)


def repair(path: Path, contents: Contents[Header]) -> None:
    """Cuts off what stands behind the last whole line of a log that no other process writes, and reports all damage.

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
    """Reports the damaged lines of a log that another process may be writing; whether there are any."""
    damaged = contents.damaged[:-1] if contents.cut else contents.damaged
    if damaged:
        _LOG.warning("%s: %s; the requests are run again.", path, left_out(damaged))
    return bool(damaged)


def set_aside(path: Path, error: DamagedError) -> None:
    """Gives a file that is damaged as a whole another name, and reports it.

    Raises:
        UserError: it cannot be renamed.
    """
    target = next(p for n in count() if not (p := path.with_name(f"{path.name}.damaged{n or ''}")).exists())
    with storage_errors(path):
        path.replace(target)
    problem = str(error).partition(";")[0]
    _LOG.warning("%s; it is set aside as %s, and its requests are run again.", problem, target.name)


def left_out(damaged: Sequence[int]) -> str:
    """What is said of damaged lines, by their numbers."""
    many = len(damaged) > 1
    numbers = ", ".join(map(str, damaged[:5])) + (", ..." if len(damaged) > 5 else "")
    return f"line{'s' if many else ''} {numbers} {'are' if many else 'is'} damaged and left out"


def sync(path: Path) -> None:
    """Lets a file, or a folder's list of files, outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot do this for a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def storage_errors(path: Path, what: str = "write") -> Iterator[None]:
    """Turns what the operating system refuses into one line for the user.

    Raises:
        UserError: in place of an OSError in the block.
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
