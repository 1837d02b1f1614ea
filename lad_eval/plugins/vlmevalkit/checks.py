"""Checks before and after VLMEvalKit's main loop, since the loop itself logs errors and goes on."""

from __future__ import annotations

import glob
import json
import logging
import os
import pickletools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_eval.errors import UnknownNameError, UserError
from lad_eval.models.vlmeval.kit import kit
from lad_eval.plugins.vlmevalkit.arguments import OUR_DATA, OUR_MODEL, Configuration
from lad_eval.plugins.vlmevalkit.scores import read_pointer, work_dir
from lad_eval.run.collect import check_options
from lad_eval.run.folder.files import ResultsError, ensure_writable
from lad_eval.tasks.task import Task

if TYPE_CHECKING:
    from lad_eval.plugins.vlmevalkit.entries import Entries

logger = logging.getLogger(__name__)

_TABLES = (".xlsx", ".tsv", ".json")
_CALLS = {
    *("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD"),
    *("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"),
}
"""Pickle opcodes that import, call or build something: text, numbers, lists and mappings need none of them."""
_NOT_DONE = ("invalid_dataset", "No infer result found", "Incomplete infer result")


def check_data(names: Sequence[str]) -> None:
    """Refuses data sets that neither VLMEvalKit nor lad_eval has; the user's own tables in VLMEvalKit's data folder are accepted.

    Raises:
        UnknownNameError: with similar names.
    """
    known = {*kit("vlmeval.dataset").SUPPORTED_DATASETS, *kit("vlmeval.dataset.video_dataset_config").supported_video_datasets}
    folder = Path(kit("vlmeval.smp").LMUDataRoot())
    for name in names:
        if name not in known and not (folder / f"{name}.tsv").is_file():
            raise UnknownNameError("task", name, known)


def check_format() -> None:
    """Refuses a table format that VLMEvalKit does not write.

    Raises:
        UserError: with the formats.
    """
    form = os.environ.get("PRED_FORMAT", "").lower() or "xlsx"
    if f".{form}" not in _TABLES:
        raise UserError(f"PRED_FORMAT must be one of {', '.join(t.removeprefix('.') for t in _TABLES)}, not {form!r}.")


def check_writable(folder: Path) -> None:
    """Makes the work folder.

    Raises:
        UserError: nothing can be written there.
    """
    try:
        ensure_writable(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except (ResultsError, OSError) as error:
        raise UserError(f"Cannot write to the work folder {folder}; choose another --work-dir.") from error


def check_configuration(configuration: Configuration, entries: Entries, ours: Mapping[str, Mapping[str, str]]) -> None:
    """Refuses a --config file that would run something other than it says, or fail after a model is loaded.

    Args:
        configuration: the file.
        entries: the table of models.
        ours: a data set of ours as the file has it -> what it stands for, by VLMEvalKit's names.

    Raises:
        UserError: a name that no file can have, an unknown model, or one of our models or tasks under a name other than its key.
    """
    from lad_eval.plugins.vlmevalkit.datasets import LADDataset

    for key, made in configuration.data.items():
        dataset = str(made.get("dataset", key))
        registered = [dataset] if dataset in LADDataset.tasks else []
        keys = list(ours.get(dataset, ())) or registered
        if made.get("class") == OUR_DATA and not keys:
            raise UnknownNameError("task", dataset, LADDataset.tasks)
        if keys and (not made or (made.get("class") == OUR_DATA and keys != [key])):
            right = f'"{keys[0]}": {{"class": "{OUR_DATA}", "dataset": "{dataset}"}}'
            raise UserError(f"{configuration.path}: write {right} instead of {key!r}; files are named after it.")
    for key, made in configuration.models.items():
        if "/" in key:
            raise UserError(f"{configuration.path}: {key!r} names files, and has a slash; give it another key.")
        if not made:
            _ = entries[key]
        elif made.get("class") == OUR_MODEL:
            _ = entries[str(made.get("model", ""))]
            if made.get("name") != key:
                raise UserError(f'{configuration.path}: add "name": "{key}" to {key!r}, by which its evidence is found.')


def check_reuse(entries: Entries, model: str, dataset: str, *, runs_model: bool, made: Mapping[str, Any] | None = None) -> None:
    """Refuses to resume from results that VLMEvalKit would misinterpret or cannot resume from.

    Args:
        entries: the table of models.
        model: VLMEvalKit's name of the model.
        dataset: VLMEvalKit's name of the data set.
        runs_model: whether the model will be run rather than only scored.
        made: the model's object in a --config file; empty or None for an entry of the table.

    Raises:
        UserError: the method, an entry's settings in VLMEvalKit's configuration or the weights have changed, or predictions are
            kept as JSON.
    """
    from lad_eval.plugins.vlmevalkit.entries import answer_settings

    folder = work_dir() / model
    predictions = folder / f"{model}_{dataset}.json"
    if runs_model and os.environ.get("PRED_FORMAT", "").lower() == "json" and predictions.is_file():
        raise UserError(f"VLMEvalKit cannot go on from predictions kept as JSON: remove {predictions}, or use PRED_FORMAT=tsv.")
    if made and made.get("class") != OUR_MODEL:
        return
    if not made and (dict.__contains__(entries, model) or model not in entries):
        return
    pointer = read_pointer(model, dataset)
    if not any(dataset in path.name for path in folder.rglob("*")):
        return
    if pointer is None:
        logger.warning("%s holds answers to %s without a record of how they were made; they are used as is.", folder, dataset)
        return
    served = entries.served(str(made["model"]) if made else model)
    options = {key: value for key, value in (made or {}).items() if key not in ("class", "model", "name", "use_vllm")}
    before, now = dict(pointer.settings), answer_settings(served, options)
    weights = before.pop("weights", None), now.pop("weights", None)
    if (pointer.model, pointer.method) != (served.base, served.answered_by):
        what = f"{pointer.model}+{pointer.method}"
    elif dict(pointer.params) != _as_kept(served.facts):
        what = f"{pointer.model}+{pointer.method} with other parameters"
    elif None not in weights and weights[0] != weights[1]:
        what = f"{served.base} with other weights"
    elif before != now:
        what = f"{served.base} with other settings"
    else:
        return
    raise UserError(f"{folder} holds answers to {dataset} of {what}; choose another --work-dir, or move that folder away.")


def check_method(entries: Entries, model: str, task: Task, *, made: Mapping[str, Any] | None = None) -> None:
    """Refuses a method that cannot decide between the options of one of our tasks, before a model is loaded.

    Args:
        entries: the table of models.
        model: VLMEvalKit's name of the model.
        task: that it is to answer.
        made: the model's object in a --config file; empty or None for an entry of the table.

    Raises:
        UserError: it cannot.
    """
    if made and made.get("class") != OUR_MODEL or not made and (dict.__contains__(entries, model) or model not in entries):
        return
    check_options(task, [entries.served(str(made["model"]) if made else model).make()])


def check_files(model: str, dataset: str) -> None:
    """Checks the files that VLMEvalKit resumes from, which a kill may have truncated, as they are not written atomically.

    Its intermediate pickles are moved aside if they are damaged or hold more than plain data: VLMEvalKit
    unpickles them, and so would run code that somebody else put there. Nothing is unpickled here. Our answers are stored
    elsewhere, others are run again.

    Raises:
        ResultsError: finished predictions that cannot be read.
    """
    from lad_eval.plugins.vlmevalkit.scores import read_replies

    folder = work_dir() / model
    for path in folder.glob(f"{glob.escape(f'{model}_{dataset}')}.*"):
        if path.suffix in _TABLES:
            read_replies(path)
    for path in folder.rglob(f"*_{glob.escape(dataset)}*.pkl"):
        if (problem := _pickle_problem(path)) is not None:
            path.rename(path.with_name(f"{path.name}.damaged"))
            logger.warning("%s %s and set aside; what it held is run again.", path, problem)


def _pickle_problem(path: Path) -> str | None:
    """Why a pickle is refused, judged by its opcodes, which are read but not executed; None for plain data."""
    try:
        with path.open("rb") as file:
            names = {instruction.name for instruction, _, _ in pickletools.genops(file)}
    except OSError as error:  # not damaged, and not to be set aside
        raise ResultsError(f"Cannot read {path}: {error.strerror or error}.") from error
    except Exception:  # damaged bytes may make the parser fail in any way
        return "is damaged"
    return "would run code" if names & _CALLS else None


def _as_kept(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as they are read back from JSON."""
    stored: dict[str, Any] = json.loads(json.dumps(params, default=str))
    return stored


def faults(model: str, dataset: str) -> list[str]:
    """What VLMEvalKit recorded as failed, one line each; nothing outside the main process."""
    if int(os.environ.get("RANK", "0")):
        return []
    files = sorted((work_dir() / model).glob("**/status.json"), key=lambda path: path.stat().st_mtime)
    status = kit("vlmeval.smp").load(str(files[-1])).get("datasets", {}).get(dataset) if files else None
    if status is None:
        return [f"{model} x {dataset}: VLMEvalKit left no status."]
    if fault := status.get("error_message"):
        return [f"{model} x {dataset}: {' '.join(str(fault).split())}"]
    reason = status.get("skip_reason")
    return [f"{model} x {dataset}: {reason}."] if reason in _NOT_DONE else []
