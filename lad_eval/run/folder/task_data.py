"""The data that a run was made with, stored in its folder as `task.json`, and the task opened again from it."""

from __future__ import annotations

import logging
from pathlib import Path

from lad_eval.files.documents import write_json
from lad_eval.run.folder.files import AGAIN, SPEC, TASK, ResultsError, read_run_json
from lad_eval.tasks.files import Document
from lad_eval.tasks.spec import spec_of
from lad_eval.tasks.task import Task

logger = logging.getLogger(__name__)


def note_data(folder: Path, task: Task) -> None:
    """Writes the task's data options, and the folder that relative paths in them start from, into a run's folder."""
    if task.folder is None:
        return
    document = {"data": dict(task.spec.data), "folder": str(task.folder.resolve())}
    try:
        if has_data(folder) and read_run_json(folder / TASK) == document:
            return
    except ResultsError as error:
        logger.warning("%s It is rewritten.", str(error).removesuffix(AGAIN).rstrip())
    write_json(folder / TASK, document)


def has_data(folder: Path) -> bool:
    """Whether a run's folder says where the data is; runs of earlier versions do not."""
    return (folder / TASK).is_file()


def open_noted(folder: Path) -> Task:
    """The task of a run, by its stored definition and the data that the run was made with.

    Raises:
        UserError: the files in the run's folder are damaged, or the data is missing or unreadable.
    """
    stored, noted = read_run_json(folder / SPEC), read_run_json(folder / TASK)
    definition, data, start = stored.get("definition"), noted.get("data"), noted.get("folder")
    if not (isinstance(definition, dict) and isinstance(data, dict) and isinstance(start, str)):
        raise ResultsError(f"{folder / TASK} does not name the data of a task.")
    # The source of calibration samples does not affect the evaluated samples.
    calibration = {key: value for key, value in (definition.get("calibration") or {}).items() if key != "on"}
    values = {**definition, "calibration": calibration, "data": data}
    spec = spec_of(Document(folder / f"{definition.get('name')}.yaml", values, {}))
    return Task.of(spec, Path(start))
