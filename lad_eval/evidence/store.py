"""The evidence store: append-only during a run, one Parquet file when it is finished, each request once."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from lad_eval.errors import DamagedError, EvidenceError
from lad_eval.evidence.files import (
    LOG,
    PARQUET,
    EvidenceHeader,
    evidence_of,
    files_of,
    first_of_each,
    header_of,
    read_parquet,
    rows_of,
    scan,
    write_parquet,
)
from lad_eval.evidence.table import Evidence, difference
from lad_eval.files.atomic import sweep, temporary_path
from lad_eval.files.log import append, left_out, rank_path, repair, set_aside, storage_errors, sync, warn_of_damage

if TYPE_CHECKING:
    from filelock import BaseFileLock


_LOG = logging.getLogger(__name__)


class EvidenceStore:
    """The evidence of one run folder, keyed by request.

        with EvidenceStore(folder, model.fingerprint, task=task.fingerprint) as store:
            store.append(model.evidence(plan.missing(store.keys())))
            store.finish()

    A batch is on the disk when `append` returns. A process that is killed loses at most the batch in progress: on
    opening, a line that was cut off is removed and reported, and every complete row is used. A file that is damaged as a whole
    is renamed, so that its requests are run again. Each of several processes passes its `rank` and writes its own file; `keys`,
    `load` and `finish` read the files of all, whatever the number of processes was before.
    """

    def __init__(
        self,
        folder: str | Path,
        fingerprint: Mapping[str, Any],
        *,
        task: Mapping[str, Any] | None = None,
        rank: int | None = None,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        """Only stores its arguments; `open` or `with` locks the folder.

        Args:
            folder: the run folder; created if it is missing.
            fingerprint: JSON-serialisable facts about the model and everything else that determines a row.
            task: the task's fingerprint; {} if there is none.
            rank: this process's number if several write at once; None for one process.
            prepare: called on opening when the folder is locked, before any file is read.
        """
        self.folder = Path(folder)
        self.fingerprint: Mapping[str, Any] = json.loads(json.dumps(dict(fingerprint)))
        self.task: Mapping[str, Any] = json.loads(json.dumps(dict(task or {})))
        self.rank = rank
        self._prepare = prepare
        self._keys: set[str] = set()
        self._reported: set[Path] = {self.path}
        self._shape: tuple[int, int, bool] | None = None
        self._lock: BaseFileLock | None = None

    @property
    def path(self) -> Path:
        """The file that this process appends to."""
        return rank_path(self.folder, LOG, self.rank)

    def open(self) -> EvidenceStore:
        """Locks the folder for this process, repairs its file and reads the stored keys.

        Raises:
            EvidenceError: another run uses the folder, or it holds evidence of another fingerprint or task.
            UserError: the folder cannot be written to.
        """
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
        try:
            if self._prepare is not None:
                with storage_errors(self.folder):
                    self._prepare()
            if not self.rank:
                sweep(self.folder)
            with storage_errors(self.folder, "read"):
                for file in files_of(self.folder):
                    self._learn(file)
        except BaseException:  # Ctrl-C too: the lock must not stay
            self.close()
            raise
        return self

    def close(self) -> None:
        """Releases the folder; appended rows are already on the disk."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> EvidenceStore:
        return self.open()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def keys(self) -> frozenset[str]:
        """Keys of all requests with evidence: those in the files when the store was opened, and those appended since."""
        return frozenset(self._keys)

    def append(self, evidence: Evidence) -> int:
        """Stores the rows with new keys, the first of equal ones, and returns their number; they are then on the disk.

        Raises:
            EvidenceError: rows without keys, of another fingerprint or shape, or with values that no model can produce.
            UserError: the disk is full or fails; nothing stored before is lost, and the store can still be appended to.
        """
        self._check_open()
        header = EvidenceHeader.for_rows(self.fingerprint, self.task, evidence)
        fingerprint = json.loads(json.dumps(dict(evidence.fingerprint)))
        if off := difference({**self.fingerprint, **fingerprint}, self.fingerprint):
            raise EvidenceError(f"The evidence was made under another fingerprint than the store's: {off}.")
        shape = (header.candidates, header.layers, header.token_maps)
        if self._shape is not None and self._shape != shape:
            raise EvidenceError(f"{self.folder} holds evidence of {_shape(*self._shape)}, not of {_shape(*shape)}.")
        if not all(evidence.key.tolist()):
            raise EvidenceError("Evidence without request keys cannot be stored.")
        first = dict(reversed([(key, row) for row, key in enumerate(evidence.key.tolist()) if key not in self._keys]))
        fresh = evidence.select(np.asarray(sorted(first.values()), dtype=np.int64))
        if len(fresh):
            append(self.path, header.document(), rows_of(fresh))
            self._shape = shape
            self._keys.update(first)
        return len(fresh)

    def load(self) -> Evidence:
        """All rows of the folder, each key once.

        Raises:
            EvidenceError: there is none, or a file is damaged beyond its last line.
        """
        return _joined(self.folder, self._reported)

    def finish(self) -> Path:
        """Joins all files of the folder into `evidence.parquet`, and then removes the others.

        One of the processes calls this, after the last batch of all of them. Evidence can be appended again later.

        Raises:
            EvidenceError: there is no evidence.
            UserError: the disk is full or fails; nothing is lost.
        """
        self._check_open()
        target = self.folder / PARQUET
        parts = [file for file in files_of(self.folder) if file != target]
        if not parts and target.exists():
            return target
        evidence = self.load()
        header = EvidenceHeader.for_rows(self.fingerprint, self.task, evidence)
        with storage_errors(target):
            with temporary_path(target) as temporary:
                write_parquet(temporary, evidence, header)
                sync(temporary)
            sync(self.folder)
            for part in parts:
                part.unlink()
        return target

    def _check_open(self) -> None:
        if self._lock is None:
            raise RuntimeError("the store is not open: use it in a `with` block")

    def _locked(self, rank: int | None = None) -> BaseFileLock:
        from filelock import FileLock, Timeout

        # Rank 0 and a single process take the same lock, so that runs of either kind exclude each other.
        number = self.rank if rank is None else rank
        name = f".evidence.rank{number}.lock" if number else ".evidence.lock"
        lock = FileLock(self.folder / name, thread_local=False)  # whichever thread closes the store releases it
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise EvidenceError(
                f"Another run is writing to {self.folder}; wait until it has ended, or choose another folder."
            ) from None
        return lock

    def _learn(self, file: Path) -> None:
        """Reads the keys of one file; a file that is damaged as a whole is set aside."""
        try:
            if file.name == PARQUET:
                evidence = read_parquet(file)
                self._accept(header_of(file), file)
                self._keys.update(evidence.key.tolist())
                return
            contents = scan(file)
        except DamagedError as error:
            self._set_aside(file, error)
            return
        if file == self.path:
            repair(file, contents)
        elif warn_of_damage(file, contents):
            self._reported.add(file)
        if contents.header is not None:
            self._accept(contents.header, file)
            self._keys.update(row["key"] for row in contents.rows)

    def _set_aside(self, file: Path, error: DamagedError) -> None:
        """Renames a damaged file, unless another process may be writing to it."""
        rank = file.name.removeprefix("evidence.rank").removesuffix(".jsonl")
        other_lock = self._locked(int(rank)) if rank.isdigit() and int(rank) != (self.rank or 0) else None
        try:
            set_aside(file, error)
        finally:
            if other_lock is not None:
                other_lock.release()

    def _accept(self, header: EvidenceHeader, file: Path) -> None:
        for kind, there, here in (("fingerprint", header.fingerprint, self.fingerprint), ("task", header.task, self.task)):
            if off := difference(there, here):
                raise EvidenceError(
                    f"{file} was made under another {kind}: {off} (there, and now). "
                    "Choose another folder, or start over with --overwrite always."
                )
        shape = (header.candidates, header.layers, header.token_maps)
        if self._shape not in (None, shape):
            raise EvidenceError(f"{file} holds evidence of {_shape(*shape)}, the folder's other files do not; move it away.")
        self._shape = shape


def read_evidence(folder: str | Path) -> Evidence:
    """All evidence of a run folder, each key once; writes nothing and takes no lock. Incomplete lines are reported.

    Raises:
        EvidenceError: there is none, a whole file is damaged, or the files differ in fingerprint or shape.
    """
    return _joined(Path(folder))


def _joined(place: Path, reported: AbstractSet[Path] = frozenset()) -> Evidence:
    """As `read_evidence`; damage of the files in `reported` is not reported again."""
    parts: list[Evidence] = []
    with storage_errors(place, "read"):
        for file in files_of(place):
            if file.name == PARQUET:
                parts.append(read_parquet(file))
                continue
            contents = scan(file)
            if contents.damaged and file not in reported:
                _LOG.warning("%s: %s.", file, left_out(contents.damaged))
            if contents.header is not None and contents.rows:
                parts.append(evidence_of(contents.rows, contents.header))
    if not parts:
        raise EvidenceError(f"There is no evidence in {place}; run the model first.")
    return first_of_each(parts)


def _shape(candidates: int, layers: int, token_maps: bool) -> str:
    return f"{candidates} candidates and {layers} layers{', with token maps' if token_maps else ''}"
