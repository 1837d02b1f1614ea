"""Finished runs, read back from their folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lad_eval.errors import DamagedError, UserError
from lad_eval.files.documents import named
from lad_eval.files.tables import read_table
from lad_eval.methods import stored_name
from lad_eval.metrics import Predictions
from lad_eval.run.folder.files import AGAIN, METRICS, PREDICTIONS, SPEC, ResultsError, read_metrics
from lad_eval.run.folder.schema import predictions_problem

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredRun:
    """A finished run's files.

    Attributes:
        path: its folder.
        metrics: `metrics.json`.
    """

    path: Path
    metrics: dict[str, Any]

    @property
    def study(self) -> str | None:
        """The study that made the run for its own tables; None for a user's own run."""
        made_by = self.metrics.get("study")
        return None if made_by is None else str(made_by)

    @property
    def methods(self) -> list[str]:
        return list(self.metrics["methods"])

    def predictions(self) -> pd.DataFrame:
        """Rows of `predictions.parquet`, one per method and request.

        Raises:
            ResultsError: it cannot be read, or is not of this run.
        """
        return self._predictions

    @cached_property
    def _predictions(self) -> pd.DataFrame:
        path = self.path / PREDICTIONS
        try:
            rows, document = read_table(path, cure=AGAIN[:1].lower() + AGAIN[1:])
            table: pd.DataFrame = rows.to_pandas(ignore_metadata=True)
        except DamagedError as error:
            raise ResultsError(str(error)) from error
        except (ValueError, TypeError, NotImplementedError) as error:  # values that are not of the columns' kinds
            raise ResultsError(f"{path} is damaged: a column has values of another type. {AGAIN}") from error
        if document is not None and document.get("run") != self.metrics["run"]:
            raise ResultsError(f"{path} is of another run. {AGAIN}")
        if problem := predictions_problem(table, int(self.metrics["candidates"])):
            raise ResultsError(f"{path} is damaged: {problem}. {AGAIN}")
        table["method"] = table["method"].map({name: stored_name(name) for name in set(table["method"])})
        return table

    def predictions_of(self, method: str) -> Predictions:
        """The predictions of one method.

        Raises:
            ResultsError: the run holds none.
            PredictionsError: a sample lacks an order, or has one twice.
        """
        self._check_holds(method)
        table = self.predictions()
        return predictions_in(table[table["method"] == method])

    def recall_of(self, method: str) -> list[float | None]:
        """Recall of one method by the answer's position, in points; None for a position without answers.

        Raises:
            ResultsError: the run holds none.
        """
        self._check_holds(method)
        recall: list[float | None] = self.metrics["methods"][method]["recall"]
        return recall

    def _check_holds(self, method: str) -> None:
        if method not in self.metrics["methods"]:
            raise ResultsError(f"{self.path} holds no {method!r}, only {', '.join(self.methods)}.")


def predictions_in(rows: pd.DataFrame) -> Predictions:
    """Rows of `predictions.parquet` of one method, as the metrics' table.

    Raises:
        PredictionsError: a sample lacks an order or has one twice, or the rows contradict each other.
    """
    return Predictions(
        rows["sample_id"].to_numpy(dtype=np.str_),
        rows["permutation"].to_numpy(),
        rows["gold_position"].to_numpy(),
        rows["position"].to_numpy(),
        np.asarray([order.split() for order in rows["order"]], dtype=np.int64),
    )


def find_run(path: Path) -> Path:
    """The run folder at `path`, or the only one under it; runs that a study made for itself count only if there is no other.

    Raises:
        UserError: there is none, or there are several.
    """
    if (path / SPEC).is_file():
        return path
    folders = [spec.parent for spec in named(path, SPEC)]
    if not folders:
        raise UserError(f"There is no run in {path}; `lad-eval run` makes one, and `lad-eval leaderboard` shows those there are.")
    if len(folders) > 1:
        finished = {run.path: run for run in finished_runs(path)}
        folders = [folder for folder in folders if folder not in finished or finished[folder].study is None] or folders
    if len(folders) > 1:
        described = "; ".join(f"{folder} ({_extent(finished.get(folder))})" for folder in folders[:4])
        raise UserError(f"There are {len(folders)} runs in {path}; name one of them: {described}{'; ...' * (len(folders) > 4)}.")
    return folders[0]


def _extent(run: StoredRun | None) -> str:
    """How much of its task a run evaluated."""
    if run is None:
        return "not finished"
    limit = run.metrics.get("limit")
    return "all samples" if limit is None else "first sample" if limit == 1 else f"first {limit} samples"


def load_run(path: Path) -> StoredRun:
    """The finished run at or under `path`.

    Raises:
        UserError: there is none, there are several, or it is not finished.
    """
    folder = find_run(path)
    if not (folder / METRICS).is_file():
        raise ResultsError(f"The run in {folder} is not finished; the command that started it resumes it.")
    return StoredRun(folder, read_metrics(folder))


def finished_runs(out: Path, *, studies: bool = True, with_predictions: bool = False) -> Iterator[StoredRun]:
    """Every finished run under `out`, by path; a damaged run is skipped with a warning.

    Args:
        out: the results folder.
        studies: include runs that a study made for its own tables.
        with_predictions: skip runs whose predictions cannot be read.
    """
    for path in named(out, METRICS):
        run = _whole(path.parent, with_predictions=with_predictions)
        if run is not None and (studies or run.study is None):
            yield run
    unfinished = [path.parent for path in named(out, SPEC) if not (path.parent / METRICS).exists()]
    if unfinished:
        many = f"{len(unfinished)} runs in {out} are" if len(unfinished) > 1 else f"1 run in {out} is"
        logger.info("%s not finished and left out, such as %s; the command that started it finishes it.", many, unfinished[0])


def _whole(folder: Path, *, with_predictions: bool) -> StoredRun | None:
    try:
        run = StoredRun(folder, read_metrics(folder))
        if with_predictions:
            run.predictions()
    except ResultsError as error:
        logger.warning("%s Until then the run is left out.", error)
        return None
    return run


def none_in(folder: Path, *, studies: bool) -> str:
    """Message for a folder without a run to show."""
    if not studies and (hidden := sum(run.study is not None for run in finished_runs(folder))):
        return f"There is no run of your own in {folder}, and {hidden} that `lad-eval study` made; --studies shows those."
    return f"There is no finished run in {folder}; `lad-eval run` makes one, or finishes it."
