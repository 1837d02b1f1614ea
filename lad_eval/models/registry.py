"""From a name to a model: `lad-tiny`, `random:<family>`, `vlmeval:<entry>`, a folder, or a hub id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lad_eval.errors import UnknownNameError, UserError

if TYPE_CHECKING:
    from lad_eval.models.base import VLM

EMBEDDED = "lad-tiny"
RANDOM = "random:"
KIT = "vlmeval:"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def model_names() -> list[str]:
    """Models that need no files: the embedded one, then the families with random weights; torch is not imported."""
    from lad_eval.models.random import FAMILIES, SIZES

    return [EMBEDDED, *(f"{RANDOM}{name}" for name in (*FAMILIES, *SIZES))]


def check_model_name(name: str) -> None:
    """Refuses a name that cannot be a model, without importing torch.

    Raises:
        UserError: no such built-in name, no such folder, or no form of a hub id.
    """
    if name in model_names() or Path(name).expanduser().is_dir():
        return
    if name.startswith(KIT) and name != KIT:
        return  # its registry takes seconds to import; `load_model` asks it
    if Path(name).expanduser().is_file():
        raise UserError(f"{name} is a file; a model is a folder with config.json, weights and processor.")
    if name.startswith(("/", "./", "../", "~")) or "\\" in name or name.count("/") > 1:
        raise UserError(f"There is no model folder {name}.")
    if not _HUB_ID.fullmatch(name):
        raise UnknownNameError("model", name, model_names())


def load_model(
    name: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    attn_implementation: str | None = None,
    batch_size: int | Literal["auto"] = "auto",
    image_preparation: Literal["protocol", "native"] = "protocol",
    seed: int = 0,
    trust_remote_code: bool = False,
) -> VLM:
    """A model that answers requests with evidence.

    Args:
        name: `lad-tiny`, `random:<family>` or `random:<family>-<size>`, a model folder, a hub id `org/name`, or
            `vlmeval:<entry>`, an entry of VLMEvalKit's registry, whose class chooses revision, dtype and device itself.
        revision: branch, tag or commit of a hub model.
        dtype: "float32", "bfloat16", "float16", or "auto": float32 on the CPU, bfloat16 on a GPU.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto": a GPU if there is one.
        attn_implementation: "sdpa", "eager", "flash_attention_2", ...; None: transformers' choice for the model.
        batch_size: requests a forward pass, or "auto".
        image_preparation: "protocol" (336 x 336, bicubic) or "native".
        seed: of random weights.
        trust_remote_code: run Python code that comes with a hub model.

    Raises:
        UserError: one line that names the fault and its mend.
    """
    check_model_name(name)
    if name.startswith(KIT):
        chosen = {"revision": revision, "dtype": dtype, "device": device, "attn": attn_implementation, "batch-size": batch_size}
        return _of_kit(name, {**chosen, "trust-remote-code": trust_remote_code}, image_preparation)
    from lad_eval.models.base import check_batch_size
    from lad_eval.models.fingerprint import files_digest
    from lad_eval.models.huggingface import HuggingFaceVLM
    from lad_eval.models.loading import (
        check_attention,
        check_folder,
        load_pretrained,
        resolve_device,
        resolve_dtype,
        spare_threads,
    )
    from lad_eval.models.preparation import check_image_preparation

    check_batch_size(batch_size)
    check_image_preparation(image_preparation)
    check_attention(attn_implementation)
    where = resolve_device(device)
    number = resolve_dtype(dtype, where)
    weights: str | None
    if name.startswith(RANDOM):
        from lad_eval.models.random import load_random

        model, processor = load_random(
            name.removeprefix(RANDOM), seed=seed, dtype=number, device=where, attn_implementation=attn_implementation
        )
        weights = f"{name} seed {seed}"
    else:
        folder = _folder(name)
        if revision is not None and folder is not None:
            raise UserError(f"A revision is for hub models; {name} is a folder.")
        if folder is not None:
            check_folder(folder)
        options: dict[str, Any] = {"attn_implementation": attn_implementation, "trust_remote_code": trust_remote_code}
        source = str(folder or name)
        model, processor, commit = load_pretrained(source, revision=revision, dtype=number, device=where, **options)
        weights = f"sha256:{files_digest(folder)}" if folder else f"{name}@{commit}" if commit else None
    spare_threads(model)
    return HuggingFaceVLM(
        model, processor, name=name, weights=weights, batch_size=batch_size, image_preparation=image_preparation
    )


def _of_kit(name: str, chosen: Mapping[str, Any], image_preparation: Literal["protocol", "native"]) -> VLM:
    """A model of VLMEvalKit, whose class chooses for itself what `chosen` names."""
    from lad_eval.models.preparation import check_image_preparation
    from lad_eval.models.vlmeval.loading import load_entry

    for option, value in chosen.items():
        if value not in (None, "auto", False):
            raise UserError(f"--{option} is not for {name}: VLMEvalKit's class of this model chooses it itself.")
    return load_entry(name.removeprefix(KIT), image_preparation=check_image_preparation(image_preparation))


def _folder(name: str) -> Path | None:
    if name == EMBEDDED:
        from lad_eval.models.tiny import folder

        return folder()
    path = Path(name).expanduser()
    return path if path.is_dir() else None
