"""What tells the weights behind a name apart from others, without reading them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lad_eval.checkpoints import ADAPTER_CONFIG, adapter_files, model_files
from lad_eval.models.source import HUB_ID, display_name, local_folder, source_of


def weights_at(place: str, revision: str | None = None) -> str:
    """Of a model folder its name and a digest of its files' sizes and times, of a hub id the commit that the local cache holds.

    Args:
        place: a folder, a hub id, or anything else.
        revision: of the hub.

    Returns:
        "" for what is neither, and for a hub id that is not in the cache.
    """
    folder = local_folder(place)
    if folder is not None:
        return f"{display_name(place)}@{folder_digest(folder)}"
    if not HUB_ID.fullmatch(place):
        return ""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(place, "config.json", revision=revision)
    except HFValidationError:
        return ""
    return f"{place}@{Path(found).parent.name}" if isinstance(found, str) else ""


def folder_digest(folder: Path) -> str:
    """Hex digest, 8 characters, of a model folder's path and of its files' names, sizes and times.

    Only files that determine the model count, of an adapter's base as well.

    Raises:
        UserError: the folder holds an adapter that names no base, a Git LFS pointer, or a part of the weights.
    """
    digest = hashlib.sha256(str(folder.resolve()).encode())
    for path in _files(folder.resolve()):
        facts = path.stat()
        digest.update(f"{path.name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:8]


def _files(folder: Path) -> list[Path]:
    if not (folder / ADAPTER_CONFIG).is_file():
        return model_files(folder, code=True)
    base = source_of(str(folder)).folder
    return [*adapter_files(folder), *(model_files(base, code=True) if base is not None else [])]
