"""What determines a model's evidence, as JSON-serialisable facts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import lad_eval

_PACKAGES = ("torch", "transformers", "torchvision", "tokenizers", "pillow")
_ENDINGS = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py"}
_PROVENANCE = ("_name_or_path", "_commit_hash", "transformers_version", "dtype", "torch_dtype")
_CHUNK_BYTES = 2**24


def describe(
    model: Any, processor: Any, *, name: str, weights: str | None, image_preparation: str, chat_template: str
) -> dict[str, Any]:
    """The fingerprint: everything but the device and the batch size, which may move figures by rounding only.

    Args:
        model: a transformers model.
        processor: its processor; its settings decide what the model sees.
        name: as the user gave it.
        weights: what identifies the weights; None: a digest of the loaded model is taken.
        image_preparation: "protocol" or "native".
        chat_template: digest of the template.
    """
    text = model.config.get_text_config()
    return {
        # Of a folder only its own name: where it stands does not matter, and its files' digest tells it from others.
        "model": Path(name).name if Path(name).is_dir() else name,
        "weights": weights or f"sha256:{model_digest(model, processor)}",
        "architecture": type(model).__name__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attn_implementation": str(getattr(text, "_attn_implementation", None) or "eager"),
        "image_preparation": image_preparation,
        "image_processor": processor_digest(processor),
        "chat_template": chat_template,
        "versions": {"lad_eval": lad_eval.__version__, **package_versions()},
    }


def package_versions() -> dict[str, str | None]:
    """Versions of the packages that a model's figures may depend on."""
    return {package: _version(package) for package in _PACKAGES}


def files_digest(folder: Path) -> str:
    """SHA-256 of a model folder's weights, configuration, tokenizer and processor files: names and contents, in order of name."""
    total = hashlib.sha256()
    for path in sorted(_model_files(folder)):
        total.update(f"{path.name}\0{file_digest(path)}\n".encode())
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


def _model_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.is_file() and path.suffix in _ENDINGS)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
