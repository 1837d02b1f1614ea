"""The leaderboard: the rows of every finished run."""

from __future__ import annotations

from pathlib import Path

from lad_eval.errors import UserError
from lad_eval.report.load import finished_runs
from lad_eval.report.rows import Row, rows_of


def gather(out: Path) -> list[Row]:
    """Rows of every finished run under `out`, by task, then model; whole tasks before parts of them.

    Raises:
        UserError: there is no finished run.
    """
    runs = list(finished_runs(out))
    if not runs:
        raise UserError(f"There is no finished run in {out}; `lad-eval run` makes one.")
    runs.sort(key=lambda run: (run.metrics["task"], run.metrics["model"], run.metrics.get("limit") is not None, str(run.path)))
    return [row for run in runs for row in rows_of(run.metrics)]
