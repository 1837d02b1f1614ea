"""Prepares and verifies a data set, and reports its status, in the folder that the user names or the remembered one."""

from __future__ import annotations

from pathlib import Path

from lad_eval.data.dataset import DataSet, PrepareOptions, Progress, Status, default_root, remember, remembered, root_of
from lad_eval.errors import DataError
from lad_eval.files.atomic import sweep
from lad_eval.files.lock import only_process

LOCK = ".lad_eval.lock"


def prepare(dataset: DataSet, root: Path | None, options: PrepareOptions, progress: Progress) -> Path:
    """Prepares a data set and remembers its folder; what is done already is not done again.

    Args:
        dataset: which.
        root: its folder; None: where it was prepared before, else a folder in the user's cache.
        options: as the user gave them.
        progress: shows steps that take long.

    Returns:
        The folder.

    Raises:
        DataError: a file is missing and cannot be fetched, or is damaged; the folder cannot be written; an option is not for this
            data set; another process is preparing the same folder.
    """
    dataset.check_options(options)
    folder = (root or remembered(dataset.name) or default_root(dataset.name)).expanduser().absolute()
    if root is not None and not options.download and not folder.is_dir():
        raise DataError(f"{folder}: no such folder, and nothing is downloaded into a new one (--no-download or HF_HUB_OFFLINE).")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made: {error.strerror}.") from None
    from lad_eval.data.retrieval.store import FOLDER

    with only_process(folder / LOCK, f"{folder} is being prepared by another process; wait until it has ended.", DataError):
        for place in (folder, *(path for path in (folder / FOLDER).rglob("*") if path.is_dir())):
            sweep(place)
        dataset.prepare(folder, options, progress)
        remember(dataset.name, folder)
    return folder


def verify(dataset: DataSet, root: Path | None, progress: Progress) -> list[str]:
    """Every fault of a data set, one line each.

    Raises:
        DataError: it was not prepared, or there is no such folder.
    """
    return dataset.verify(_folder(dataset, root), progress)


def status(dataset: DataSet, root: Path | None) -> tuple[Path | None, Status]:
    """The folder of a data set (None: none yet), and what is there.

    Raises:
        DataError: there is no such folder.
    """
    if root is None and remembered(dataset.name) is None:
        return None, Status(False, ())
    folder = _folder(dataset, root)
    return folder, dataset.status(folder)


def _folder(dataset: DataSet, root: Path | None) -> Path:
    if root is None:
        return root_of(dataset.name)
    if not root.expanduser().is_dir():
        raise DataError(f"{root}: no such folder.")
    return root.expanduser().absolute()
