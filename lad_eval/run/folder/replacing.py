"""A run that is started over: the old run's files are kept, under other names, until the new run is finished."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lad_eval.errors import Interrupted, UserError
from lad_eval.evidence.files import files_of
from lad_eval.run.folder.files import CONDITIONS, METRICS, PLAN, PREDICTIONS, SPEC, TASK

REPLACED = ".replaced"
"""Suffix of the names of the old run's files."""
_REPLIES = "replies.*.jsonl"
_USAGE = "usage*.jsonl"


def set_aside(folder: Path) -> None:
    """Renames the files that a run wrote into its folder; other files stay. The folder must be locked."""
    for path in _written(folder):
        path.rename(path.with_name(path.name + REPLACED))


def settle(folder: Path) -> None:
    """Decides between the two runs in a folder that a killed process left: the new one stays if it has an answer."""
    if not _aside(folder):
        return
    if (folder / SPEC).exists() and _has_answers(folder):
        _discard(folder)
    else:
        _put_back(folder)


@contextmanager
def replacing(folder: Path) -> Iterator[None]:
    """Removes the old run once the block is done; a block that is refused leaves the folder unchanged.

    If the block is interrupted or fails, the new run stays if it has an answer, since it can be resumed.
    """
    try:
        yield
    except BaseException as error:  # Ctrl-C too: the folder holds one run, the old or the new
        refused = isinstance(error, UserError) and not isinstance(error, Interrupted)
        if refused or not _has_answers(folder):
            _put_back(folder)
        else:
            _discard(folder)
        raise
    _discard(folder)


def _written(folder: Path) -> list[Path]:
    """The files that a run writes, `spec.json` first: while it exists, all of the run does."""
    names = (SPEC, CONDITIONS, METRICS, PREDICTIONS, PLAN, TASK)
    logs = (*files_of(folder), *folder.glob(_REPLIES), *folder.glob(_USAGE))
    return [p for p in (*(folder / name for name in names), *logs) if p.exists()]


def _aside(folder: Path) -> list[Path]:
    """The old run's files, `spec.json` last."""
    return sorted(folder.glob(f"*{REPLACED}"), key=lambda path: path.name.startswith(SPEC))


def _has_answers(folder: Path) -> bool:
    conditions = (folder / CONDITIONS).glob("*")
    return any(files_of(place) or any(place.glob(_REPLIES)) for place in (folder, *conditions))


def _put_back(folder: Path) -> None:
    """Restores the old run, if there is one; the new one's files are removed only if it has written its `spec.json`."""
    if not (aside := _aside(folder)):
        return
    for path in _written(folder) if (folder / SPEC).exists() else ():
        _remove(path)
    for path in aside:
        _remove(before := path.with_name(path.name.removesuffix(REPLACED)))
        path.rename(before)


def _discard(folder: Path) -> None:
    for path in _aside(folder):
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
