"""Checks task definitions and their data, and lists every fault."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from lad_eval.data.pictures import treatment_line
from lad_eval.errors import NotPreparedError, UserError
from lad_eval.tasks.files import SpecError, read_document, shown
from lad_eval.tasks.plan import calibration_samples, option_fault
from lad_eval.tasks.registry import definitions, index, is_path, load_task, open_task, read_group, resolve
from lad_eval.tasks.sources.base import Checkable, Illustrated
from lad_eval.tasks.task import Task

_LOG = logging.getLogger(__name__)


def validate(path: str | Path) -> list[str]:
    """Every fault of a task definition, of all definitions below a folder, or of those of a name; one line each.

    For each task the definition is read, the data opened and checked if the source supports it (`folder` reads every
    picture), the first sample of both splits made into a request, and pictures shared by calibration and evaluation are
    searched: the log counts the harmless ones, and those that decoding turns, flattens or scales. If a task's data set is not
    prepared on this machine, only the definition is read, which the log says.

    Raises:
        UserError: there is no such path or name, or no definition below it.
    """
    files = _files(path)
    problems = [problem for file in files for problem in _problems(file)]
    places: dict[str, Path] = {}
    for file in files:
        if file.stem in places:
            problems.append(f"{shown(file)}: name: {file.stem!r} is defined in {shown(places[file.stem])} too.")
        places.setdefault(file.stem, file)
    return problems


def count_definitions(paths: Iterable[str | Path]) -> int:
    """How many definitions, of tasks and of groups, `validate` reads for these paths, each counted once.

    Raises:
        UserError: as `validate`.
    """
    return len({file.resolve() for path in paths for file in _files(path)})


def open_tasks(path: str | Path) -> list[Task]:
    """The tasks whose definitions `validate` checks, opened; those whose data set is not prepared here are left out.

    Raises:
        UserError: as `validate`, or a task cannot be opened.
    """
    names = dict.fromkeys(name for file in _files(path) for name in resolve(str(file.resolve())))
    return [task for name in names if (task := _prepared(name)) is not None]


def preparing(path: str | Path) -> list[str]:
    """The commands for the data sets and embeddings that the tasks of `validate` need and this machine lacks, once each.

    Raises:
        UserError: as `validate`, or a task cannot be opened.
    """
    names = dict.fromkeys(name for file in _files(path) for name in resolve(str(file.resolve())))
    return list(dict.fromkeys(command for name in names if (command := _command(name)) is not None))


def _command(name: str) -> str | None:
    try:
        next(iter(load_task(name).samples("test", 1)), None)
    except NotPreparedError as error:
        return error.command
    return None


def _prepared(name: str) -> Task | None:
    try:
        return load_task(name)
    except NotPreparedError as error:
        _LOG.info("%s: not checked with the model: %s", shown(Path(name)), error)
        return None


def _files(path: str | Path) -> list[Path]:
    root = Path(path)
    if not root.exists():
        if is_path(str(path)):
            raise UserError(f"No such file or folder: {shown(root)}.")
        known = index().tasks
        return [known[name] for name in resolve(str(path))]
    files = list(definitions(root)) if root.is_dir() else [root]
    if not files:
        raise UserError(f"No task definition (*.yaml) below {shown(root)}.")
    return files


def _problems(file: Path) -> list[str]:
    where = shown(file)
    try:
        if read_group(file) is not None:
            resolve(str(file))
            return []
        task = open_task(read_document(file))
        faults = task.source.problems() if isinstance(task.source, Checkable) else []
        if isinstance(task.source, Illustrated) and (line := treatment_line(task.source.treatments())):
            _LOG.info("%s: %s", where, line)
        return [f"{where}: {fault}" for fault in faults] or _first_requests(task, where) or _calibration(task, where)
    except SpecError as error:
        return list(error.problems)
    except NotPreparedError as error:
        _LOG.info("%s: no fault found, but its data was not checked: %s", where, error)
        return []
    except UserError as error:
        return [f"{where}: {error}"]


def _first_requests(task: Task, where: str) -> list[str]:
    problems = []
    for split in ("test", "calibration"):
        sample = next(iter(task.samples(split, 1)), None)
        if sample is None:
            problems.append(f"{where}: the {split} split has no sample.")
        elif (fault := option_fault(task, sample)) is not None:
            problems.append(f"{where}: sample {sample.id} {fault}.")
        else:
            _ = task.request(sample, task.orders[0]).key
    return problems


def _calibration(task: Task, where: str) -> list[str]:
    """Checks that the task can be calibrated on samples that it does not evaluate; notes are logged."""
    if not (task.other or task).permutable:
        return []
    try:
        _, notes = calibration_samples(task, list(task.samples("test")))
    except UserError as error:
        return [f"{where}: {error}"]
    for note in notes:
        _LOG.warning("%s: %s", where, note)
    return []
