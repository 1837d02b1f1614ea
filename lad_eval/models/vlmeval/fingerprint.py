"""What determines the evidence of a VLMEvalKit model, as JSON-serialisable facts."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import lad_eval
from lad_eval.models.fingerprint import folder_identity, model_digest, package_versions
from lad_eval.models.source import Source, local_folder, snapshot_of
from lad_eval.models.vlmeval.kit import kit_version


def describe(
    inner: Any,
    model: Any,
    processor: Any,
    *,
    name: str,
    dataset: str | None,
    weights: str | None,
    arguments: Mapping[str, Any],
    image_preparation: str,
    date: str | None = None,
) -> dict[str, Any]:
    """The fingerprint. The prompt and the preprocessing are the class's own, so its source stands for them.

    Args:
        inner: the VLMEvalKit model object.
        model: its model.
        processor: its processor or tokenizer.
        name: as the user gave it.
        dataset: VLMEvalKit's name of the data set, which some classes choose their prompt by.
        weights: what identifies the weights; None: the hub's commit or the folder's files if the model says where it is from,
            else a digest of the loaded weights.
        arguments: the class was made with.
        image_preparation: "protocol" or "native".
        date: that a chat template prints; None where none asks for it.
    """
    config = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return {
        "model": name,
        "weights": weights or _weights(model, processor),
        "architecture": type(model).__name__,
        "dtype": str(getattr(model, "dtype", None)).removeprefix("torch."),
        "attn_implementation": str(getattr(text, "_attn_implementation", None) or "eager"),
        "image_preparation": image_preparation,
        **({} if date is None else {"prompt": {"date": date}}),
        "harness": {
            "package": kit_version(),
            "class": type(inner).__name__,
            "source": _source_digest(type(inner)),
            # Of a folder its name only: where it is does not matter, and the weights' digest tells it from others.
            "arguments": {key: _name_of(value) for key, value in sorted(arguments.items())},
            "dataset": dataset,
        },
        "versions": {"lad_eval": lad_eval.__version__, **package_versions()},
    }


def _name_of(value: Any) -> str:
    return Source(str(folder)).content_name if isinstance(value, str) and (folder := local_folder(value)) else str(value)


def _weights(model: Any, processor: Any) -> str:
    config = model.config
    source, commit = str(getattr(config, "_name_or_path", "") or ""), getattr(config, "_commit_hash", None)
    folder = local_folder(source)
    if folder is None and (cached := snapshot_of(PurePath(source))):
        return f"{cached.name}@{cached.commit}"
    if folder is None and commit:
        return f"{source}@{commit}"
    if folder is None:
        return f"sha256:{model_digest(model, processor)}"
    identity = folder_identity(folder, code=True)
    if not identity.startswith("sha256:"):
        return identity
    # A class may read other files than transformers does, so what it has loaded counts as well.
    return "sha256:" + hashlib.sha256(f"{identity} {model_digest(model, processor)}".encode()).hexdigest()


def _source_digest(kind: type) -> str:
    """Hex digest, 16 characters, of the class's source and its bases' in VLMEvalKit."""
    total = hashlib.sha256()
    for base in kind.__mro__[:-1]:
        total.update(_source(base).encode())
    return total.hexdigest()[:16]


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return kind.__qualname__
