"""The folders of preference learning: one process at a time, only in empty folders, finished atomically."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lad_eval.errors import UserError
from lad_eval.files.checkpoints import TRAINING, adapter_weights
from lad_eval.files.documents import parse, read_json, write_json
from lad_eval.files.lock import only_process
from lad_eval.files.log import storage_errors

_LOG = logging.getLogger(__name__)
SETTINGS = "settings.json"
CHECKPOINTS = "checkpoints"
_LOCK = ".capl.lock"


@contextmanager
def only_process_in(folder: Path, begun: str) -> Iterator[None]:
    """Creates a folder, and keeps other processes out of it while the block runs.

    Args:
        folder: that is written to.
        begun: name of a file that the folder has if this work was started before.

    Raises:
        UserError: another process is using it, it cannot be written, or it holds other files.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with only_process(
        folder / _LOCK, f"Another process is writing to {folder}; wait until it has ended, or choose another --out."
    ):
        if not (folder / begun).exists():
            check_empty(folder)
        yield


def check_empty(folder: Path) -> None:
    """Refuses a folder that is not empty; hidden files do not count.

    Raises:
        UserError: it is not empty.
    """
    if other := next((path.name for path in sorted(folder.iterdir()) if not path.name.startswith(".")), None):
        raise UserError(f"{folder} is not empty: it holds {other}; choose another --out.")


def is_finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the folder holds the adapter of the training with these settings; remains of killed trainings are removed.

    Raises:
        UserError: the settings there are of another training.
    """
    stored = read_json(folder / SETTINGS, what="the settings of a training", cure="Choose another --out.")
    if stored != settings:
        other = next((name for name in settings if stored.get(name) != settings[name]), "format")
        raise UserError(f"{folder} holds another training (its {other} differs); choose another --out.")
    if adapter_weights(folder) is None:
        return False
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return True


def begin(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes the settings of a training, unless they are there.

    Raises:
        UserError: the folder cannot be written.
    """
    if not (folder / SETTINGS).exists():
        with storage_errors(folder):
            write_json(folder / SETTINGS, settings)


def last_checkpoint(folder: Path, *, remove: bool) -> str | None:
    """The latest complete checkpoint; the trainer's state is written last.

    Args:
        folder: of the checkpoints.
        remove: whether to remove incomplete ones; only one of several processes does.
    """
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        try:
            parse((path / "trainer_state.json").read_bytes(), constants=True)
        except (OSError, ValueError):
            if remove:
                _LOG.warning("%s is incomplete and is not used.", path)
                shutil.rmtree(path, ignore_errors=True)
            continue
        return str(path)
    return None


def finish(folder: Path, save: Callable[[Path], object], document: Mapping[str, Any]) -> None:
    """Moves an adapter into the folder, its weights last, so that a kill never leaves them without the rest.

    Args:
        folder: of the training.
        save: writes an adapter into a folder.
        document: what the adapter was trained on and under.

    Raises:
        UserError: the folder cannot be written.
    """
    with storage_errors(folder):
        made = folder / CHECKPOINTS / "adapter"
        save(made)
        write_json(folder / TRAINING, document)
        weights = adapter_weights(made)
        for path in sorted(made.iterdir(), key=lambda path: path == weights):
            path.replace(folder / path.name)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
