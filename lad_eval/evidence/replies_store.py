"""The replies of one condition and decoding: appended a batch at a time, resumable, never mixed, never repeated."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from lad_eval.errors import DamagedError, EvidenceError, UserError
from lad_eval.evidence.files import is_count, is_number, is_permutation
from lad_eval.evidence.replies import UNKNOWN_PASSES, Decoding, Replies, Reply, row_of
from lad_eval.evidence.table import difference
from lad_eval.files.atomic import temporary_path
from lad_eval.files.documents import CHECKSUM
from lad_eval.files.lines import is_sealed, opened, salt_of, sealed
from lad_eval.tasks.request import Request

_LOG = logging.getLogger(__name__)
FORMAT = 1
_COLUMNS = ("key", "sample_id", "perm", "gold_position", "identifiers", "texts", "forward_passes", "seconds")


class ReplyStore:
    """Replies keyed by request, in `replies.<decoding>.jsonl`: a header line that says what made them, then one row per line.

    The folder is the run's, whose evidence store holds the lock. A batch is on the disk when `append` returns; a line that a kill
    cut off is removed on opening and reported, and every whole row counts. Of several processes each gives its `rank` and writes
    a file of its own until `finish` joins them.

    Args:
        folder: of the run, or of a condition in it; made if it is missing.
        decoding: how the replies are written; part of the file's name.
        fingerprint: of the model, and of all else that determines a reply.
        task: the task's fingerprint.
        rank: this process's number where several write at once.
    """

    def __init__(
        self,
        folder: Path,
        decoding: Decoding,
        fingerprint: Mapping[str, Any],
        *,
        task: Mapping[str, Any],
        rank: int | None = None,
    ) -> None:
        self.folder, self.decoding, self.rank = folder, decoding, rank
        told = {"format": FORMAT, "fingerprint": dict(fingerprint), "task": dict(task), "decoding": decoding.document()}
        self._header: dict[str, Any] = json.loads(json.dumps(told))
        self._keys: set[str] = set()

    @property
    def path(self) -> Path:
        """The file that this process appends to."""
        rank = "" if self.rank is None else f".rank{self.rank}"
        return self.folder / f"replies.{self.decoding.slug}{rank}.jsonl"

    def open(self) -> ReplyStore:
        """Repairs this process's file and learns what is there; a file without a header that can be read is set aside.

        Raises:
            EvidenceError: the files hold replies of another model, task or decoding.
            UserError: the folder cannot be written to.
        """
        with _told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self._repair()
        for file in reply_files(self.folder, self.decoding):
            try:
                found = self._read(file)
            except DamagedError as error:
                if not self.rank or file == self.path:  # else another process does
                    self._set_aside(file, error)
                continue
            damaged = found.damaged - found.cut  # another process may be writing its last line now
            if damaged and (not self.rank or file == self.path):
                _LOG.warning("%s: %s; the requests are asked again.", file, _left_out(damaged))
            self._keys.update(row["key"] for row in found.rows)
        return self

    def keys(self) -> frozenset[str]:
        """Keys of all requests with a reply, of every file."""
        return frozenset(self._keys)

    def append(self, requests: Mapping[str, Request], replies: Sequence[Reply]) -> int:
        """Stores the replies whose keys are new, and returns their number; they are on the disk then.

        Args:
            requests: by key, those that were replied to among them.
            replies: what was written.

        Raises:
            UserError: the disk is full or fails; nothing stored before is lost.
        """
        fresh = [reply for reply in replies if reply.key not in self._keys]
        salt = salt_of(self._header)
        content = b"".join(sealed(row_of(requests[reply.key], reply), salt) for reply in fresh)
        with _told(self.path):
            size = self.path.stat().st_size if self.path.exists() else 0
            begun = b"" if size else sealed(self._header)
            try:
                _put(self.path, begun + content)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.truncate(self.path, size)
                raise
        self._keys.update(reply.key for reply in fresh)
        return len(fresh)

    def finish(self) -> None:
        """Joins the files of all ranks; of several processes one calls this, after the last batch of all.

        Raises:
            EvidenceError: the files hold replies of another model, task or decoding; they stay as they are.
            UserError: the disk is full or fails; nothing is lost.
        """
        files = reply_files(self.folder, self.decoding)
        target = self.folder / f"replies.{self.decoding.slug}.jsonl"
        read = [self._read(file) for file in files]
        if not files or (files == [target] and not read[0].damaged):
            return
        rows = {row["key"]: row for found in reversed(read) for row in found.rows}
        salt = salt_of(self._header)
        with _told(target):
            with temporary_path(target) as temporary:
                _put(temporary, sealed(self._header) + b"".join(sealed(row, salt) for row in rows.values()))
            for file in files:
                if file != target:
                    file.unlink()

    def _read(self, file: Path) -> Read:
        """A file that was made as this store says.

        Raises:
            DamagedError: it does not begin with a header.
            EvidenceError: it was made otherwise.
        """
        found = read_file(file)
        if found.header is not None and (off := difference(found.header, self._header)):
            raise EvidenceError(
                f"{file} was made otherwise: {off} (there, and now). Choose another folder, or use --overwrite always."
            )
        return found

    def _set_aside(self, file: Path, error: DamagedError) -> None:
        with _told(file):
            target = next(p for n in count() if not (p := file.with_name(f"{file.name}.damaged{n or ''}")).exists())
            file.replace(target)
        problem = str(error).partition(";")[0]
        _LOG.warning("%s; it is set aside as %s, and its requests are asked again.", problem, target.name)

    def _repair(self) -> None:
        """Cuts off what stands behind the last line break."""
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            _LOG.warning("%s: its last line was cut off and is removed; the request is asked again.", self.path)
            os.truncate(self.path, end)


def read_replies(folder: Path, decoding: Decoding) -> Replies:
    """All replies of a folder written in a way, each key once; lines that are not whole are reported.

    Raises:
        EvidenceError: there are none, a file is damaged beyond single lines, or the files do not belong together.
    """
    rows: dict[str, dict[str, Any]] = {}
    fingerprint: Mapping[str, Any] | None = None
    for file in reply_files(folder, decoding):
        header, found, damaged, _ = read_file(file)
        if damaged:
            _LOG.warning("%s: %s.", file, _left_out(damaged))
        if header is None:
            continue
        fingerprint = header["fingerprint"] if fingerprint is None else fingerprint
        if off := difference(header["fingerprint"], fingerprint):
            raise EvidenceError(f"{file} was made otherwise than the folder's other replies: {off}; move it away.")
        if header["decoding"] != decoding.document():
            raise EvidenceError(f"{file} holds replies that were written in another way than its name says; move it away.")
        for row in found:
            rows.setdefault(row["key"], row)
    if len({len(row["perm"]) for row in rows.values()}) > 1:
        raise EvidenceError(f"{folder} holds replies to questions of different numbers of candidates; move them away.")
    return Replies.of(list(rows.values()), fingerprint or {})


def reply_files(folder: Path, decoding: Decoding) -> list[Path]:
    """Files of replies: the joined one, then the ranks' in order."""
    name = f"replies.{decoding.slug}"
    ranks = {path: path.name[len(name) + 5 : -6] for path in folder.glob(f"{name}.rank*.jsonl")}
    in_order = sorted((path for path, rank in ranks.items() if rank.isdigit()), key=lambda path: int(ranks[path]))
    return [path for path in (folder / f"{name}.jsonl", *in_order) if path.exists()]


class Read(NamedTuple):
    """A file of replies.

    Attributes:
        header: None if nothing whole is in it.
        rows: that are whole.
        damaged: how many lines are not.
        cut: the last of those has no line break yet.
    """

    header: dict[str, Any] | None
    rows: list[dict[str, Any]]
    damaged: int
    cut: bool


def read_file(path: Path) -> Read:
    """Header and whole rows of a file.

    Raises:
        DamagedError: it does not begin with a header.
        EvidenceError: it is of another format.
        UserError: it cannot be read.
    """
    with _told(path, "read"):
        first, *others = path.read_bytes().split(b"\n")
    if not others:
        return Read(None, [], int(bool(first)), bool(first))
    header = opened(first)
    if header is None or not _is_header(header):
        raise DamagedError(f"{path} does not begin with a header, so what made its rows is unknown; move it away and run again.")
    if header["format"] != FORMAT:
        raise EvidenceError(f"{path} has format {header['format']!r} of replies, and this version of lad_eval reads {FORMAT}.")
    header.pop(CHECKSUM, None)
    salt, must, samples = salt_of(header), is_sealed(first), header["decoding"]["samples"]
    lines = [line for line in others if line]
    documents = [opened(line, salt, must=must) for line in lines]
    rows = [row for row in documents if row is not None and _is_row(row, samples)]
    return Read(header, rows, len(lines) - len(rows), bool(others[-1]))


def _is_header(header: Mapping[str, Any]) -> bool:
    named = all(isinstance(header.get(name), Mapping) for name in ("fingerprint", "task", "decoding"))
    return named and "format" in header and is_count(header["decoding"].get("samples"))


def _is_row(row: Mapping[str, Any], samples: int) -> bool:
    """Whether every value of a row is there and is what its column may hold."""
    if not all(name in row for name in _COLUMNS):
        return False
    lists = all(isinstance(row[name], list) and row[name] for name in ("perm", "identifiers", "texts"))
    return (
        lists
        and isinstance(row["key"], str)
        and bool(row["key"])
        and isinstance(row["sample_id"], str)
        and all(isinstance(text, str) for name in ("identifiers", "texts") for text in row[name])
        and len(row["perm"]) == len(row["identifiers"])
        and is_permutation(row["perm"], len(row["perm"]))
        and is_count(row["gold_position"], len(row["perm"]) - 1)
        and len(row["texts"]) == samples
        and (is_count(row["forward_passes"]) or row["forward_passes"] == UNKNOWN_PASSES)
        and is_number(row["seconds"])
        and row["seconds"] >= 0
    )


def _left_out(damaged: int) -> str:
    return f"{damaged} damaged line{'s are' if damaged > 1 else ' is'} left out"


def _put(path: Path, content: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


@contextlib.contextmanager
def _told(path: Path, what: str = "write") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fault = f"Cannot {what} {path}: {error.strerror or error}. What is stored there is safe;"
        raise UserError(f"{fault} free the disk, set the permissions, or choose another folder.") from error
