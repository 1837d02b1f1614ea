"""A method on disk: its parameters and learned state, in one safetensors file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lad_eval.errors import UserError
from lad_eval.files.documents import parse
from lad_eval.files.tensors import read_tensors, tensors_as_bytes

_LEARNED = re.compile(r"[a-z][a-z0-9_]*_")


_STORED = (np.ndarray, np.generic, str, int, float, bool)


def save_state(path: Path, kind: str, params: Mapping[str, Any], learned: Mapping[str, Any]) -> None:
    """Writes the file; missing folders are created.

    Raises:
        UserError: the file cannot be written.
    """
    tensors = {k: np.ascontiguousarray(v) for k, v in learned.items() if isinstance(v, np.ndarray) and v.dtype.kind in "fiub"}
    if objects := [k for k, v in learned.items() if not isinstance(v, _STORED)]:
        raise TypeError(
            f"{kind}.{objects[0]} is a {type(learned[objects[0]]).__name__}; what is learned must be arrays, numbers or strings"
        )
    others = {k: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in learned.items() if k not in tensors}
    metadata = {
        "method": kind,
        "params": json.dumps(params, default=_plain),
        "learned": json.dumps(others),
        "texts": json.dumps([k for k, v in learned.items() if k in others and isinstance(v, np.ndarray)]),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tensors_as_bytes(tensors, metadata))
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from error


def load_state(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and learned state that `save` wrote for a method of class `kind`.

    Raises:
        UserError: the file is missing, damaged, or holds another method.
    """
    try:
        tensors, metadata = read_tensors(path)
        held = metadata["method"]
        params = {k: tuple(v) if isinstance(v, list) else v for k, v in parse(metadata["params"]).items()}
        learned = dict(parse(metadata["learned"]))
        texts = list(parse(metadata["texts"]))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not the saved state of a method, or is damaged; save one with Method.save.") from error
    if held != kind:
        raise UserError(f"{path} holds a {held}, not a {kind}: load it with {held}.load.")
    state = {**tensors, **{k: np.asarray(v, dtype=np.str_) if k in texts else v for k, v in learned.items()}}
    if not _sound(state):
        raise UserError(f"{path} is not the saved state of a method, or is damaged; save one with Method.save.")
    return params, state


def _sound(state: Mapping[str, Any]) -> bool:
    """Whether learned state has names and shapes as methods learn them: finite, with N candidates in the last dimension."""
    candidates = state.get("n_candidates_")
    arrays = [v for v in state.values() if isinstance(v, np.ndarray) and v.dtype.kind == "f"]
    return (
        all(_LEARNED.fullmatch(name) for name in state)
        and (not state or (isinstance(candidates, int) and candidates >= 2))
        and all(np.isfinite(array).all() and (not array.ndim or array.shape[-1] == candidates) for array in arrays)
    )


def _plain(value: Any) -> Any:
    """Numpy scalars and arrays as plain Python values, for JSON."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be saved")
