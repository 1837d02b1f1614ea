"""The replies of one condition and decoding: appended a batch at a time, resumable, never mixed, never repeated."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence import difference
from lad_eval.replies import Decoding, Replies, Reply, row_of
from lad_eval.tasks.request import Request

_LOG = logging.getLogger(__name__)
FORMAT = 1
_COLUMNS = ("key", "sample_id", "perm", "gold_position", "identifiers", "texts", "forward_passes", "seconds")


class ReplyStore:
    """Replies keyed by request, in `replies.<decoding>.jsonl`: a header line that says what made them, then a row a line.

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
        """Mends this process's file and learns what is there.

        Raises:
            EvidenceError: the files hold replies of another model, task or decoding.
            UserError: the folder cannot be written to.
        """
        with _told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                self._mend()
        for file in reply_files(self.folder, self.decoding):
            self._keys.update(row["key"] for row in self._rows(file))
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
        content = "".join(json.dumps(row_of(requests[reply.key], reply)) + "\n" for reply in fresh).encode()
        with _told(self.path):
            size = self.path.stat().st_size if self.path.exists() else 0
            begun = b"" if size else json.dumps(self._header, sort_keys=True).encode() + b"\n"
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
        if not files or files == [target]:
            return
        rows = {row["key"]: row for file in reversed(files) for row in self._rows(file)}
        beside = target.with_name(f".{target.name}.new")
        with _told(target):
            beside.unlink(missing_ok=True)
            lines = [json.dumps(self._header, sort_keys=True), *map(json.dumps, rows.values())]
            _put(beside, "".join(f"{line}\n" for line in lines).encode())
            beside.replace(target)
            for file in files:
                if file != target:
                    file.unlink()

    def _rows(self, file: Path) -> list[dict[str, Any]]:
        """The rows of a file that was made as this store says.

        Raises:
            EvidenceError: it was not.
        """
        header, rows = read_file(file)
        if header is not None and (off := difference(header, self._header)):
            raise EvidenceError(
                f"{file} was made otherwise: {off} (there, and now). Choose another folder, or use --overwrite always."
            )
        return rows

    def _mend(self) -> None:
        """Cuts off what stands behind the last line break."""
        content = self.path.read_bytes()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            _LOG.warning("%s: its last line was cut off and is removed; the request is asked again.", self.path)
            os.truncate(self.path, end)


def read_replies(folder: Path, decoding: Decoding) -> Replies:
    """All replies of a folder written in a way, each key once.

    Raises:
        EvidenceError: there are none.
    """
    rows: dict[str, dict[str, Any]] = {}
    fingerprint: Mapping[str, Any] = {}
    for file in reply_files(folder, decoding):
        header, found = read_file(file)
        fingerprint = fingerprint if header is None else header["fingerprint"]
        for row in found:
            rows.setdefault(row["key"], row)
    return Replies.of(list(rows.values()), fingerprint)


def reply_files(folder: Path, decoding: Decoding) -> list[Path]:
    """Files of replies: the joined one, then the ranks' in order."""
    name = f"replies.{decoding.slug}"
    ranks = {path: path.name[len(name) + 5 : -6] for path in folder.glob(f"{name}.rank*.jsonl")}
    in_order = sorted((path for path, rank in ranks.items() if rank.isdigit()), key=lambda path: int(ranks[path]))
    return [path for path in (folder / f"{name}.jsonl", *in_order) if path.exists()]


def read_file(path: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Header and whole rows of a file; lines that are not whole are reported.

    Raises:
        EvidenceError: it does not begin with a header.
        UserError: it cannot be read.
    """
    with _told(path, "read"):
        lines = path.read_bytes().split(b"\n")
    documents = [_json(line) for line in lines if line]
    if not documents:
        return None, []
    header = documents[0]
    if not isinstance(header, dict) or header.get("format") != FORMAT or "fingerprint" not in header:
        raise EvidenceError(f"{path} does not begin with a header, so what made its rows is unknown; move it away and run again.")
    rows = [row for row in documents[1:] if isinstance(row, dict) and all(name in row for name in _COLUMNS)]
    if damaged := len(documents) - 1 - len(rows):
        _LOG.warning("%s: %d damaged lines are left out.", path, damaged)
    return header, rows


def _put(path: Path, content: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


@contextlib.contextmanager
def _told(path: Path, what: str = "write") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"Cannot {what} {path}: {error.strerror or error}. What is stored there is safe; mend this.") from error
