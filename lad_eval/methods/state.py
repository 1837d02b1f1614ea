"""Parameters and learned state of a method in one safetensors file: arrays as tensors, the rest as JSON metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lad_eval.errors import UserError


def save(path: Path, kind: str, params: Mapping[str, Any], learned: Mapping[str, Any]) -> None:
    """Writes the file; missing folders are made.

    Raises:
        UserError: the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    tensors = {k: np.ascontiguousarray(v) for k, v in learned.items() if isinstance(v, np.ndarray) and v.dtype.kind in "fiub"}
    others = {k: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in learned.items() if k not in tensors}
    metadata = {
        "method": kind,
        "params": json.dumps(params, default=_plain),
        "learned": json.dumps(others),
        "texts": json.dumps([k for k, v in learned.items() if k in others and isinstance(v, np.ndarray)]),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_bytes(tensors, metadata=metadata))
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error


def load(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and learned state that `save` wrote for a method of class `kind`.

    Raises:
        UserError: the file is missing, damaged, or holds another method.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the handle is no mapping
        held = metadata["method"]
        params = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(metadata["params"]).items()}
        learned = json.loads(metadata["learned"])
        texts = json.loads(metadata["texts"])
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not the saved state of a method; save one with Method.save.") from error
    if held != kind:
        raise UserError(f"{path} holds a {held}, not a {kind}: load it with {held}.load.")
    return params, {**tensors, **{k: np.asarray(v, dtype=np.str_) if k in texts else v for k, v in learned.items()}}


def _plain(value: Any) -> Any:
    """What JSON does not know of numpy: scalars and arrays."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be saved")
