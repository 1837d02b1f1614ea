"""CLIP and SigLIP models of transformers as encoders."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lad_eval.data.retrieval.embeddings import Floats
from lad_eval.errors import DataError
from lad_eval.files.checkpoints import ADAPTER_CONFIG, check_no_pointers, model_files

if TYPE_CHECKING:
    from PIL.Image import Image


_CHUNK_BYTES = 2**24


class TwoTowers:
    """A model with a tower for pictures and one for text, in single precision."""

    def __init__(self, name: str, model: Any, processor: Any, weights: str) -> None:
        self.name = name
        self._model = model
        self._processor = processor
        text = model.config.text_config
        self._words: dict[str, Any] = {"truncation": True, "max_length": text.max_position_embeddings, "return_tensors": "pt"}
        # SigLIP was trained on captions padded to one length.
        self._words["padding"] = "max_length" if model.config.model_type.startswith("siglip") else True
        settings = sorted((key, repr(value)) for key, value in processor.image_processor.to_dict().items())
        self.fingerprint = f"{weights}/{hashlib.sha256(repr(settings).encode()).hexdigest()[:16]}"

    def images(self, pictures: Sequence[Image]) -> Floats:
        """Float32[b, D], L2-normalised."""
        inputs = self._processor.image_processor(images=list(pictures), return_tensors="pt")
        return self._normalised(self._model.get_image_features, inputs)

    def texts(self, captions: Sequence[str]) -> Floats:
        """Float32[b, D], L2-normalised; captions longer than the model's limit are cut."""
        return self._normalised(self._model.get_text_features, self._processor.tokenizer(list(captions), **self._words))

    @torch.inference_mode()
    def _normalised(self, features: Any, inputs: Any) -> Floats:
        output = features(**inputs.to(self._model.device))
        # transformers >= 5 returns the projected features as the pooled output, earlier versions as a tensor.
        features = output if isinstance(output, torch.Tensor) else output.pooler_output
        array: Floats = features.float().cpu().numpy()
        normalised: Floats = (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)
        return normalised


def load_encoder(name: str, *, device: str | None = None, download: bool = True) -> TwoTowers:
    """A CLIP or SigLIP model by hub id or folder.

    Args:
        name: hub id, or a folder that `save_pretrained` made of model and processor.
        device: as torch names it; None: a GPU if there is one.
        download: False: only what is in the hub's cache on this machine.

    Raises:
        DataError: it cannot be loaded, is neither CLIP nor SigLIP, or there is no such device.
    """
    from transformers import AutoModel, AutoProcessor
    from transformers.utils import logging

    where = _device(device)
    folder = Path(name).expanduser()
    source = str(folder) if folder.is_dir() else name
    if not folder.is_dir() and (folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise DataError(f"{name}: no such folder with an encoder; give --encoder a CLIP or SigLIP model, a hub id or a folder.")
    if folder.is_dir():
        check_no_pointers(model_files(folder))
        _check_no_adapter(name, (folder / ADAPTER_CONFIG).is_file())
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        # First what is on this machine: the hub's client would try for half a minute to reach a network that is not there.
        model, processor = _first(source, AutoModel, AutoProcessor, download=download)
    except (OSError, ValueError, ImportError, LookupError, RuntimeError, TypeError, AttributeError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DataError(
            f"The encoder {name!r} cannot be loaded: {reason.rstrip('.')}; give --encoder a CLIP or SigLIP model "
            "of the hub, or a folder with one (`hf download <id> --local-dir <folder>`)."
        ) from None
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    _check_no_adapter(name, getattr(model, "_hf_peft_config_loaded", False))
    lacking = [part for part in ("get_image_features", "get_text_features") if not hasattr(model, part)]
    if lacking or not all(hasattr(processor, part) for part in ("image_processor", "tokenizer")):
        raise DataError(
            f"{name} is a {type(model).__name__}, which does not embed pictures and text; give a CLIP or SigLIP model."
        )
    weights = f"sha256:{_digest(folder)}" if folder.is_dir() else f"{name}@{getattr(model.config, '_commit_hash', None)}"
    return TwoTowers(name, model.eval().float().to(where), processor, weights)


def _check_no_adapter(name: str, held: bool) -> None:
    if held:
        raise DataError(f"The encoder {name!r} holds a PEFT adapter; merge it into its base (merge_and_unload) and save that.")


def _first(source: str, model: Any, processor: Any, *, download: bool) -> tuple[Any, Any]:
    def load(only: bool) -> tuple[Any, Any]:
        # The released code's preparation is Pillow's, not torchvision's.
        prepared = processor.from_pretrained(source, local_files_only=only, backend="pil")
        return model.from_pretrained(source, local_files_only=only), prepared

    try:
        return load(True)
    except OSError:
        if not download or Path(source).is_dir():
            raise
    return load(False)


def _device(name: str | None) -> torch.device:
    if name in (None, "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(str(name))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise DataError(f"There is no device {name!r} here; give another --device, or none to have one chosen.") from None
    return device


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in model_files(folder):
        content = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                content.update(chunk)
        total.update(f"{path.name}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()[:32]
