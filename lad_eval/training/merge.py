"""Saves a model with the adapter merged into its weights as a model folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lad_eval.errors import UserError
from lad_eval.files.log import storage_errors
from lad_eval.models.fingerprint import TRAINED_UNDER

if TYPE_CHECKING:
    from lad_eval.models.huggingface import HuggingFaceVLM


def check_new(folder: Path) -> None:
    """Refuses a folder that a model cannot take the place of: it must not be there, or hold nothing, hidden files included.

    Raises:
        UserError: it holds something, or is the working folder.
    """
    with storage_errors(folder, "use"):
        if folder.exists() and folder.samefile(Path.cwd()):
            raise UserError(f"{folder} is the working folder, which cannot be replaced; choose another --out.")
        names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    if names:
        raise UserError(f"{folder} holds something else, {names[0]} for one; choose another --out.")


def save_merged(vlm: HuggingFaceVLM, folder: Path) -> None:
    """Saves a model with the adapter that was merged into it, in its dtype, with its processor, atomically.

    The attention that the adapter was trained under is kept in the model's configuration.

    Raises:
        UserError: the model has no adapter, or the folder holds something or cannot be written.
    """
    facts = vlm.fingerprint
    if "adapter" not in facts:
        raise UserError(f"{vlm.name} has no adapter to merge; name one with --adapter.")
    if facts.get("adapter_attention") is not None:
        setattr(vlm.model.config, TRAINED_UNDER, dict(facts["adapter_attention"]))
    check_new(folder)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            made = Path(scratch) / "model"
            vlm.model.save_pretrained(str(made))
            vlm.processor.save_pretrained(str(made))
            made.replace(folder)
