"""What tells the weights behind a name apart from others, without reading them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def weights_at(place: str, revision: str | None = None) -> str:
    """Of a model folder its name and a digest of its files' sizes and times, of a hub id the commit that the local cache holds.

    Args:
        place: a folder, a hub id, or anything else.
        revision: of the hub.

    Returns:
        "" for what is neither, and for a hub id that is not in the cache.
    """
    folder = Path(place).expanduser()
    if folder.is_dir():
        return f"{folder.resolve().name}@{folder_digest(folder)}"
    if not _HUB_ID.fullmatch(place):
        return ""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(place, "config.json", revision=revision)
    except HFValidationError:
        return ""
    return f"{place}@{Path(found).parent.name}" if isinstance(found, str) else ""


def folder_digest(folder: Path) -> str:
    """Hex digest, 8 characters, of a folder's path and of its files' names, sizes and times."""
    digest = hashlib.sha256(str(folder.resolve()).encode())
    for path in sorted(folder.iterdir()):
        if path.is_file():
            facts = path.stat()
            digest.update(f"{path.name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:8]
