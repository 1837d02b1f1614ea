"""What a server says about a run's answers, their tokens and models: a log in the run's folder, which a killed run keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lad_eval.errors import DamagedError
from lad_eval.evidence.files import is_count
from lad_eval.files.log import LogRow, append, rank_path, rank_paths, read_log, repair, set_aside
from lad_eval.models.base import VLM, Metered, Usage
from lad_eval.run.folder.files import CONDITIONS

NAME = "usage"
_ANSWERS = "answers"
_HEADER = {"format": 1, "counts": "tokens"}


def noted(model: VLM, folder: Path, rank: int | None, stored: Iterator[int]) -> Iterator[int]:
    """The entries of an iterator; after each the tokens that the model has used are noted, if it counts them.

    Args:
        model: that the iterator runs.
        folder: of the answers.
        rank: of this process, if several write at once.
        stored: sizes of batches, as they are stored.

    Raises:
        UserError: the log cannot be written.
    """
    if not isinstance(model, Metered):
        yield from stored
        return
    path = rank_path(folder, NAME, rank)
    _repair(path)
    before = model.usage
    try:
        for count in stored:
            before = _note(path, before, model.usage)
            yield count
    finally:
        _note(path, before, model.usage)


def read_usage(run: Path) -> Usage | None:
    """The tokens noted in a run's folder and in those of its conditions; None where none were."""
    logs = [path for place in (run, *sorted((run / CONDITIONS).glob("*"))) for path in rank_paths(place, NAME)]
    rows = [row for path in logs for row in _rows(path)]
    return sum((Usage(row["prompt"], row["reply"], Counter(row.get(_ANSWERS, {}))) for row in rows), Usage()) if rows else None


def _note(path: Path, before: Usage, now: Usage) -> Usage:
    if (spent := now - before) != Usage():
        path.parent.mkdir(parents=True, exist_ok=True)
        served = {_ANSWERS: dict(spent.answers)} if spent.answers else {}
        append(path, _HEADER, [{"prompt": spent.prompt, "reply": spent.reply, **served}])
    return now


def _repair(path: Path) -> None:
    if not path.exists():
        return
    try:
        repair(path, read_log(path, _header, _is_row))
    except DamagedError as error:
        set_aside(path, error)


def _rows(path: Path) -> list[LogRow]:
    try:
        return read_log(path, _header, _is_row).rows
    except DamagedError:
        return []


def _header(document: dict[str, Any], path: Path) -> dict[str, Any]:
    if document != _HEADER:
        raise DamagedError(f"{path} is not a log of tokens; move it away.")
    return document


def _is_row(row: LogRow, header: dict[str, Any]) -> bool:
    answers = row.get(_ANSWERS, {})
    named = isinstance(answers, dict) and all(is_count(count) for count in answers.values())
    return named and is_count(row.get("prompt")) and is_count(row.get("reply"))
