"""Our own safetensors files: the metadata holds a digest of all tensors and of the other metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lad_eval.files.documents import CHECKSUM

Tensors = Mapping[str, npt.NDArray[Any]]


def tensors_as_bytes(tensors: Tensors, metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with its digest."""
    from safetensors.numpy import save

    return bytes(save(dict(tensors), metadata={**metadata, CHECKSUM: _digest(tensors, metadata)}))


def read_tensors(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Tensors, and the metadata without the digest; a file of an earlier version without a digest is accepted.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is not safetensors, or not what was written; the text says which.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the handle is not a mapping
    except SafetensorError as error:
        raise ValueError((str(error).splitlines() or ["it is not safetensors"])[0]) from None
    stored = metadata.pop(CHECKSUM, None)
    if stored is not None and stored != _digest(tensors, metadata):
        raise ValueError("it does not hold what was written")
    return tensors, metadata


def _digest(tensors: Tensors, metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"\n{name} {array.dtype.str} {list(array.shape)}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
