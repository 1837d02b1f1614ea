"""Which finished runs a report or a card is of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from lad_eval.errors import UserError
from lad_eval.models.source import display_name
from lad_eval.run.folder import SPEC, ResultsError
from lad_eval.run.stored import StoredRun, finished_runs, load_run, none_in
from lad_eval.tasks.registry import tasks_in_order


def choose(
    folders: Sequence[Path], model: str | None = None, tasks: Sequence[str] | None = None, *, studies: bool = True
) -> list[StoredRun]:
    """The finished runs at or below the folders, each once.

    Runs on named tasks come in the order of the names. Else the folders' order counts, and below a folder that of the models'
    names and of the tasks' definitions (`tasks_in_order`).

    Args:
        folders: run folders, or folders above them.
        model: only the runs of this model, as it was named to `run`.
        tasks: only the runs on these, names or paths of YAML files.
        studies: the runs below folders that studies made for their own tables too; a run's own folder is always taken.

    Raises:
        UserError: a folder holds no finished run, or none is of the model, or of one of the tasks.
    """
    runs = _below(folders, studies=studies)
    if model is not None:
        shown = display_name(model)
        there = sorted({str(run.metrics.get("model")) for run in runs})
        runs = [run for run in runs if run.metrics.get("model") == shown]
        if not runs:
            raise ResultsError(f"There is no finished run of {shown} in {_named(folders)}, only of {', '.join(there)}.")
    if tasks is None:
        return runs
    names = [Path(task).stem if task.endswith((".yaml", ".yml")) else task for task in tasks]
    if missing := [name for name in names if all(run.metrics.get("task") != name for run in runs)]:
        whose = "" if model is None else f" of {display_name(model)}"
        raise ResultsError(
            f"There is no finished run{whose} on {', '.join(missing)} in {_named(folders)}; `lad-eval run --tasks` makes one."
        )
    return [run for name in names for run in runs if run.metrics.get("task") == name]


def _below(folders: Sequence[Path], *, studies: bool) -> list[StoredRun]:
    found: dict[Path, StoredRun] = {}
    for folder in folders:
        here = [load_run(folder)] if (folder / SPEC).is_file() else _ordered(finished_runs(folder, studies=studies))
        if not here:
            raise UserError(none_in(folder, studies=studies))
        found |= {run.path.resolve(): run for run in here}
    return list(found.values())


def _ordered(found: Iterable[StoredRun]) -> list[StoredRun]:
    runs = list(found)
    tasks = tasks_in_order({str(run.metrics.get("task")) for run in runs})
    return sorted(runs, key=lambda run: (str(run.metrics.get("model")), tasks.index(str(run.metrics.get("task")))))


def _named(folders: Sequence[Path]) -> str:
    return ", ".join(map(str, folders))
