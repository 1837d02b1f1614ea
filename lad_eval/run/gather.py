"""The leaderboard: the rows of every finished run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from lad_eval.errors import UserError
from lad_eval.report.rows import Row, reported_rows, rows_of
from lad_eval.run.stored import StoredRun, finished_runs


def gather(out: Path, *, reported: bool = False) -> list[Row]:
    """Rows of every finished run under `out`, by task, then model; whole tasks before parts of them.

    Runs of one model on one task that differ in something else (weights, dtype, data, ...) are told apart by their hashes.

    Args:
        out: the results folder.
        reported: after the rows of a model on a task, those that the task's definition reports of that model from elsewhere.

    Raises:
        UserError: there is no finished run, or a file cannot be read.
    """
    runs = sorted(finished_runs(out), key=_place)
    if not runs:
        raise UserError(f"There is no finished run in {out}; `lad-eval run` makes one.")
    alike = Counter(map(_place, runs))
    rows = []
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        label = f" [{run.metrics['run'][:6]}]" if alike[_place(run)] > 1 else ""
        rows += [replace(row, model=row.model + label) for row in rows_of(run.metrics)]
        if reported and (following is None or _place(following)[:2] != _place(run)[:2]):
            rows += reported_rows(run.metrics)
    return rows


def _place(run: StoredRun) -> tuple[str, str, bool, int, str]:
    limit, calibration = run.metrics["limit"], run.metrics.get("calibration") or {}
    elsewhere = str(calibration["task"]) if calibration.get("transferred") else ""
    return run.metrics["task"], run.metrics["model"], limit is not None, limit or 0, elsewhere
