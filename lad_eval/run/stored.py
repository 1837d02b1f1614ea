"""Finished runs, read back from their folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_eval.errors import UserError
from lad_eval.run.folder import METRICS, PREDICTIONS, SPEC, ResultsError, read_json

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StoredRun:
    """What a finished run left.

    Attributes:
        path: its folder.
        metrics: `metrics.json`.
    """

    path: Path
    metrics: dict[str, Any]

    @property
    def study(self) -> str | None:
        """The study that made the run for its own tables; None for a run that a user asked for."""
        made_by = self.metrics.get("study")
        return None if made_by is None else str(made_by)

    @property
    def methods(self) -> list[str]:
        return list(self.metrics["methods"])

    def predictions(self) -> pd.DataFrame:
        """Rows of `predictions.parquet`, one a method and request.

        Raises:
            ResultsError: it cannot be read.
        """
        import pandas as pd

        path = self.path / PREDICTIONS
        try:
            table: pd.DataFrame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise ResultsError(f"Cannot read {path}: {' '.join(str(error).split())}.") from error
        return table

    def predictions_of(self, method: str) -> pd.DataFrame:
        """The rows of one method.

        Raises:
            ResultsError: the run holds none.
        """
        self._check_holds(method)
        table = self.predictions()
        rows: pd.DataFrame = table[table["method"] == method]
        return rows

    def recall_of(self, method: str) -> list[float | None]:
        """Recall of one method by the answer's position, in points; None where no answer stood.

        Raises:
            ResultsError: the run holds none.
        """
        self._check_holds(method)
        recall: list[float | None] = self.metrics["methods"][method]["recall"]
        return recall

    def _check_holds(self, method: str) -> None:
        if method not in self.metrics["methods"]:
            raise ResultsError(f"{self.path} holds no {method!r}, only {', '.join(self.methods)}.")


def find_run(path: Path) -> Path:
    """The run folder at `path`, or the only one under it.

    Raises:
        UserError: there is none, or there are several.
    """
    if (path / SPEC).is_file():
        return path
    found = sorted(spec.parent for spec in path.rglob(SPEC)) if path.is_dir() else []
    if not found:
        raise UserError(f"There is no run in {path}; `lad-eval run` makes one, and `lad-eval leaderboard` shows those there are.")
    if len(found) > 1:
        raise UserError(f"There are {len(found)} runs in {path}; name one of them, e.g. {found[0]}.")
    return found[0]


def load_run(path: Path) -> StoredRun:
    """The finished run at or under `path`.

    Raises:
        UserError: there is none, there are several, or it is not finished.
    """
    folder = find_run(path)
    if not (folder / METRICS).is_file():
        raise ResultsError(f"The run in {folder} is not finished; the command that began it resumes it.")
    return StoredRun(folder, read_json(folder / METRICS))


def finished_runs(out: Path, *, studies: bool = True) -> Iterator[StoredRun]:
    """Every finished run under `out`, by path; without `studies` only those that a user asked for themselves."""
    for path in sorted(out.rglob(METRICS)):
        run = StoredRun(path.parent, read_json(path))
        if studies or run.study is None:
            yield run


def none_in(folder: Path, *, studies: bool) -> str:
    """What is wrong where no run was found to show."""
    if not studies and (hidden := sum(1 for _ in finished_runs(folder))):
        return f"There is no run of your own in {folder}, and {hidden} that `lad-eval paper` made; --studies shows those."
    return f"There is no finished run in {folder}; `lad-eval run` makes one, or finishes it."
