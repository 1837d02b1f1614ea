"""The facts that determine a model's evidence, JSON-serialisable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lad_eval.errors import UserError
from lad_eval.files.checkpoints import TRAINING, adapter_files, model_files
from lad_eval.files.documents import read_json
from lad_eval.models.source import snapshot_of
from lad_eval.version import __version__

_PACKAGES = ("torch", "transformers", "torchvision", "tokenizers", "pillow")
_PROVENANCE = ("_name_or_path", "_commit_hash", "transformers_version", "dtype", "torch_dtype")
TRAINED_UNDER = "lad_eval_trained_under"
"""Entry of a merged model's configuration: the attention that its adapter was trained under, as facts."""
_CHUNK_BYTES = 2**24


def describe(
    model: Any,
    processor: Any,
    *,
    name: str,
    weights: str | None,
    image_preparation: str,
    chat_template: str,
    adapter: str | None = None,
    adapter_attention: Mapping[str, Any] | None = None,
    prompt: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The fingerprint: everything but the device and the batch size, which may change figures by rounding only.

    Args:
        model: a transformers model.
        processor: its processor; its settings determine the model's inputs.
        name: see `lad_eval.models.source.Source.content_name`.
        weights: what identifies the weights; None: a digest of the loaded model is taken.
        image_preparation: "protocol", "native" or "pad".
        chat_template: digest of the template.
        adapter: what identifies the adapter that was merged into the weights; None: there is none, and the fingerprint has no
            entry for it.
        adapter_attention: the attention that the adapter was trained under, also one merged into the base before, as facts;
            None: that of the unchanged model.
        prompt: what determines a prompt besides the template, and a digest of a prompt; None if nothing does.
    """
    text = model.config.get_text_config()
    peft = {} if adapter is None else {"peft": _version("peft")}
    return {
        "model": name,
        "weights": weights or f"sha256:{model_digest(model, processor)}",
        **({} if adapter is None else {"adapter": adapter}),
        **({} if adapter_attention is None else {"adapter_attention": dict(adapter_attention)}),
        "architecture": type(model).__name__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attn_implementation": str(getattr(text, "_attn_implementation", None) or "eager"),
        "image_preparation": image_preparation,
        "image_processor": processor_digest(processor),
        "chat_template": chat_template,
        **({} if prompt is None else {"prompt": dict(prompt)}),
        "versions": {"lad_eval": __version__, **package_versions(), **peft},
    }


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that a model's figures may depend on."""
    return {package: _version(package) for package in _PACKAGES}


def folder_identity(folder: Path, *, code: bool = False) -> str:
    """Identifier of the model in a folder: its commit if the folder is unchanged in the hub's cache, else a digest of its files.

    Args:
        folder: absolute, without links in its path.
        code: see `lad_eval.files.checkpoints.model_files`.
    """
    return _identity(folder, model_files(folder, code=code))


def adapter_identity(folder: Path) -> str:
    """The same for the adapter in a folder."""
    return _identity(folder, adapter_files(folder))


def adapter_attention(folder: Path) -> dict[str, Any] | None:
    """The attention that an adapter was trained under, where `lad-eval capl train` made it: facts of an intervention.

    Raises:
        UserError: what the training wrote about itself is damaged.
    """
    document = _training(folder)
    return None if document is None else _attention(document.get("attention"), str(folder / TRAINING))


def adapter_base(folder: Path) -> str | None:
    """What identifies the weights that an adapter was trained on, where `lad-eval capl train` made it; else None.

    Raises:
        UserError: what the training wrote about itself is damaged.
    """
    made_from = (_training(folder) or {}).get("made_from")
    model = made_from.get("model") if isinstance(made_from, dict) else None
    weights = model.get("weights") if isinstance(model, dict) else None
    return weights if isinstance(weights, str) else None


def _training(folder: Path) -> dict[str, Any] | None:
    path = folder / TRAINING
    if not path.exists():
        return None
    return read_json(path, what="how the adapter was trained", cure="Copy it again from where it was trained.")


def merged_attention(config: Any, folder: str) -> dict[str, Any] | None:
    """The attention that the adapter in a merged model's weights was trained under, as `lad-eval capl merge` notes it.

    Args:
        config: of the model, a transformers configuration.
        folder: of the model, for error texts.

    Raises:
        UserError: the note is damaged.
    """
    return _attention(getattr(config, TRAINED_UNDER, None), f"{TRAINED_UNDER} in config.json of {folder}")


def _attention(facts: Any, place: str) -> dict[str, Any] | None:
    if facts is not None and not (isinstance(facts, dict) and isinstance(facts.get("name"), str)):
        raise UserError(
            f"{place} does not name the attention that the adapter was trained under; copy it again from where it was trained."
        )
    return facts


def _identity(folder: Path, files: Iterable[Path]) -> str:
    paths = list(files)
    cached = snapshot_of(folder)
    if cached is None or cached.subfolder:
        return f"sha256:{_digest(folder, paths)}"
    commit = f"{cached.repository}@{cached.commit}"
    # The hub's cache consists of links; a regular file in place of a link was added later.
    return commit if all(path.is_symlink() for path in paths) else f"{commit} sha256:{_digest(folder, paths)}"


def _digest(folder: Path, files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.relative_to(folder).as_posix()}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def model_digest(model: Any, processor: Any) -> str:
    """SHA-256 of a loaded model: configuration, tokenizer, all parameters and buffers with their names, shapes and dtypes."""
    import torch

    settings = {key: value for key, value in model.config.to_dict().items() if key not in _PROVENANCE}
    words = sorted(getattr(processor, "tokenizer", processor).get_vocab().items())
    digest = hashlib.sha256(json.dumps([settings, words], sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        for part in _parts(tensor.detach().contiguous().flatten().view(torch.uint8)):
            digest.update(part.cpu().numpy().tobytes())
    return digest.hexdigest()


def processor_digest(processor: Any) -> str:
    """Hex digest, 16 characters, of the image processor's settings."""
    settings = processor.image_processor.to_dict()
    content = sorted((key, repr(value)) for key, value in settings.items())
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def _parts(flat: Any) -> Iterable[Any]:
    return (flat[start : start + _CHUNK_BYTES] for start in range(0, len(flat), _CHUNK_BYTES))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
