"""The store of replies of one condition and decoding: append-only, resumable, each request once."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lad_eval.errors import DamagedError, EvidenceError
from lad_eval.evidence.files import is_count, is_number, is_permutation
from lad_eval.evidence.replies import UNKNOWN_PASSES, Decoding, Replies, Reply, row_of
from lad_eval.evidence.table import difference
from lad_eval.files.log import (
    Contents,
    LogRow,
    append,
    left_out,
    rank_path,
    rank_paths,
    read_log,
    repair,
    set_aside,
    storage_errors,
    warn_of_damage,
    write_log,
)
from lad_eval.tasks.request import Request

_LOG = logging.getLogger(__name__)
FORMAT = 1
_COLUMNS = ("key", "sample_id", "perm", "gold_position", "identifiers", "texts", "forward_passes", "seconds")


class ReplyStore:
    """Replies keyed by request, in `replies.<decoding>.jsonl`: a header line that says what produced them, then one row per line.

    The folder is the run's, whose evidence store holds the lock. A batch is on the disk when `append` returns; a line that was
    cut off when a process was killed is removed on opening and reported, and every complete row is used. Each of several
    processes passes its `rank` and writes its own file until `finish` joins them.

    Args:
        folder: of the run, or of a condition in it; created if it is missing.
        decoding: generation settings; part of the file's name.
        fingerprint: of the model, and of everything else that determines a reply.
        task: the task's fingerprint.
        rank: this process's number if several write at once.
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
        header = {"format": FORMAT, "fingerprint": dict(fingerprint), "task": dict(task), "decoding": decoding.document()}
        self._header: dict[str, Any] = json.loads(json.dumps(header))
        self._keys: set[str] = set()

    @property
    def path(self) -> Path:
        """The file that this process appends to."""
        return rank_path(self.folder, _name(self.decoding), self.rank)

    def open(self) -> ReplyStore:
        """Repairs this process's file and reads the stored keys; a file without a readable header is set aside.

        Raises:
            EvidenceError: the files hold replies of another model, task or decoding.
            UserError: the folder cannot be written to.
        """
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for file in reply_files(self.folder, self.decoding):
            mine = not self.rank or file == self.path  # otherwise another process repairs and reports it
            try:
                contents = self._read(file)
            except DamagedError as error:
                if mine:
                    set_aside(file, error)
                continue
            if file == self.path:
                repair(file, contents)
            elif mine:
                warn_of_damage(file, contents)
            self._keys.update(row["key"] for row in contents.rows)
        return self

    def keys(self) -> frozenset[str]:
        """Keys of all requests with a reply, of every file."""
        return frozenset(self._keys)

    def append(self, requests: Mapping[str, Request], replies: Sequence[Reply]) -> int:
        """Stores the replies whose keys are new, and returns their number; they are then on the disk.

        Args:
            requests: by key, including those of the replies.
            replies: to store.

        Raises:
            UserError: the disk is full or fails; nothing stored before is lost.
        """
        fresh = [reply for reply in replies if reply.key not in self._keys]
        append(self.path, self._header, [row_of(requests[reply.key], reply) for reply in fresh])
        self._keys.update(reply.key for reply in fresh)
        return len(fresh)

    def finish(self) -> None:
        """Joins the files of all ranks; one of the processes calls this, after the last batch of all of them.

        Raises:
            EvidenceError: the files hold replies of another model, task or decoding; they are not changed.
            UserError: the disk is full or fails; nothing is lost.
        """
        files = reply_files(self.folder, self.decoding)
        target = rank_path(self.folder, _name(self.decoding), None)
        read = [self._read(file) for file in files]
        if not files or (files == [target] and not read[0].damaged):
            return
        rows = {row["key"]: row for contents in reversed(read) for row in contents.rows}
        write_log(target, self._header, rows.values())
        with storage_errors(target):
            for file in files:
                if file != target:
                    file.unlink()

    def _read(self, file: Path) -> Contents[dict[str, Any]]:
        """The rows of a file that has this store's fingerprint, task and decoding.

        Raises:
            DamagedError: it does not begin with a header.
            EvidenceError: it has another fingerprint, task or decoding.
        """
        contents = read_file(file)
        if contents.header is not None and (off := difference(contents.header, self._header)):
            raise EvidenceError(
                f"{file} was made under other conditions: {off} (there, and now). "
                "Choose another folder, or use --overwrite always."
            )
        return contents


def read_replies(folder: Path, decoding: Decoding) -> Replies:
    """All replies of a folder for a decoding, each key once; incomplete lines are reported.

    Raises:
        EvidenceError: there are none, a whole file is damaged, or the files have different fingerprints, tasks or decodings.
    """
    rows: dict[str, LogRow] = {}
    fingerprint: Mapping[str, Any] | None = None
    for file in reply_files(folder, decoding):
        contents = read_file(file)
        if contents.damaged:
            _LOG.warning("%s: %s.", file, left_out(contents.damaged))
        header = contents.header
        if header is None:
            continue
        fingerprint = header["fingerprint"] if fingerprint is None else fingerprint
        if off := difference(header["fingerprint"], fingerprint):
            raise EvidenceError(f"{file} was made under other conditions than the folder's other replies: {off}; move it away.")
        if header["decoding"] != decoding.document():
            raise EvidenceError(f"{file} holds replies with another decoding than its name says; move it away.")
        for row in contents.rows:
            rows.setdefault(row["key"], row)
    if len({len(row["perm"]) for row in rows.values()}) > 1:
        raise EvidenceError(f"{folder} holds replies to questions of different numbers of candidates; move them away.")
    return Replies.of(list(rows.values()), fingerprint or {})


def reply_files(folder: Path, decoding: Decoding) -> list[Path]:
    """Files of replies: the joined one, then the ranks' in order."""
    return rank_paths(folder, _name(decoding))


def read_file(path: Path) -> Contents[dict[str, Any]]:
    """Header and complete rows of a file.

    Raises:
        DamagedError: it does not begin with a header.
        EvidenceError: it is of another format.
        UserError: it cannot be read.
    """
    with storage_errors(path, "read"):
        return read_log(path, _header, _is_row)


def _name(decoding: Decoding) -> str:
    return f"replies.{decoding.slug}"


def _header(document: dict[str, Any], path: Path) -> dict[str, Any]:
    if not _is_header(document):
        raise DamagedError(f"{path} does not begin with a header, so its rows are of unknown origin; move it away and run again.")
    if document["format"] != FORMAT:
        raise EvidenceError(f"{path} has format {document['format']!r} of replies, and this version of lad_eval reads {FORMAT}.")
    return document


def _is_header(header: Mapping[str, Any]) -> bool:
    named = all(isinstance(header.get(name), Mapping) for name in ("fingerprint", "task", "decoding"))
    return named and "format" in header and is_count(header["decoding"].get("samples"))


def _is_row(row: LogRow, header: Mapping[str, Any]) -> bool:
    """Whether a row has every value, each of its column's type and range."""
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
        and len(row["texts"]) == header["decoding"]["samples"]
        and (is_count(row["forward_passes"]) or row["forward_passes"] == UNKNOWN_PASSES)
        and is_number(row["seconds"])
        and row["seconds"] >= 0
    )
