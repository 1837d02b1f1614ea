"""What is checked before VLMEvalKit's main loop and after it, since the loop itself logs a fault and goes on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lad_eval.errors import UnknownNameError, UserError
from lad_eval.models.registry import EMBEDDED
from lad_eval.models.vlmeval.kit import kit
from lad_eval.plugins.vlmevalkit.pointers import read_pointer, work_dir
from lad_eval.run.folder import ResultsError, ensure_writable

if TYPE_CHECKING:
    from lad_eval.plugins.vlmevalkit.entries import Entries

_NOT_DONE = ("invalid_dataset", "No infer result found", "Incomplete infer result")


def check_data(names: Sequence[str]) -> None:
    """Refuses data sets that neither VLMEvalKit nor we have; a table of the user's in VLMEvalKit's data folder counts.

    Raises:
        UnknownNameError: with what is near.
    """
    known = {*kit("vlmeval.dataset").SUPPORTED_DATASETS, *kit("vlmeval.dataset.video_dataset_config").supported_video_datasets}
    folder = Path(kit("vlmeval.smp").LMUDataRoot())
    for name in names:
        if name not in known and not (folder / f"{name}.tsv").is_file():
            raise UnknownNameError("task", name, known)


def check_writable(folder: Path) -> None:
    """Makes the work folder.

    Raises:
        UserError: nothing can be written there.
    """
    try:
        ensure_writable(folder)
    except ResultsError as error:
        raise UserError(f"Cannot write to the work folder {folder}; choose another --work-dir.") from error


def check_reuse(entries: Entries, model: str, dataset: str, *, will_ask: bool) -> None:
    """Refuses to go on from results that VLMEvalKit would take for what they are not, or cannot go on from.

    Args:
        entries: the table of models.
        model: its name there.
        dataset: VLMEvalKit's name of the data set.
        will_ask: whether the model will be asked, and not only scored.

    Raises:
        UserError: an entry's settings in VLMEvalKit's configuration have changed, a hub model's weights have, or predictions are
            kept as JSON.
    """
    from lad_eval.plugins.vlmevalkit.entries import entry_settings

    folder = work_dir() / model
    predictions = folder / f"{model}_{dataset}.json"
    if will_ask and os.environ.get("PRED_FORMAT", "").lower() == "json" and predictions.is_file():
        raise UserError(f"VLMEvalKit cannot go on from predictions kept as JSON: remove {predictions}, or use PRED_FORMAT=tsv.")
    if dict.__contains__(entries, model) or model not in entries:
        return
    pointer, served = read_pointer(model, dataset), entries.served(model)
    now = hub_weights(served.model) if served.ours else entry_settings(served.base)
    if pointer is None or not now or dict(pointer.settings) == now:
        return
    what = "other weights" if served.ours else "other settings of its entry in VLMEvalKit's configuration"
    raise UserError(
        f"{folder} holds answers of {served.base} to {dataset} with {what}; choose another --work-dir, or move that folder away."
    )


def hub_weights(model: str) -> dict[str, str]:
    """The commit of a hub model that the local cache holds, as a fingerprint names it; empty if it holds none."""
    from huggingface_hub import try_to_load_from_cache

    if model == EMBEDDED or Path(model).is_dir():
        return {}
    found = try_to_load_from_cache(model, "config.json")
    return {"weights": f"{model}@{Path(found).parent.name}"} if isinstance(found, str) else {}


def faults(model: str, dataset: str) -> list[str]:
    """What VLMEvalKit noted as failed, a line; none in a process that does not lead."""
    if int(os.environ.get("RANK", "0")):
        return []
    found = sorted((work_dir() / model).glob("**/status.json"), key=lambda path: path.stat().st_mtime)
    status = kit("vlmeval.smp").load(str(found[-1])).get("datasets", {}).get(dataset) if found else None
    if status is None:
        return [f"{model} x {dataset}: VLMEvalKit left no status."]
    if fault := status.get("error_message"):
        return [f"{model} x {dataset}: {' '.join(str(fault).split())}"]
    reason = status.get("skip_reason")
    return [f"{model} x {dataset}: {reason}."] if reason in _NOT_DONE else []
