"""Who answers: the VLM protocol, any image-text-to-text model of transformers behind it, and the names of models.

`load_model(name)` is the way in; `base.VLM` is what a model of your own must offer. Nothing here imports torch before it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lad_eval.models.base import VLM

if TYPE_CHECKING:
    from lad_eval.models.huggingface import HuggingFaceVLM as HuggingFaceVLM
    from lad_eval.models.registry import load_model as load_model
    from lad_eval.models.registry import model_names as model_names

__all__ = ["VLM", "HuggingFaceVLM", "load_model", "model_names"]

_HOME = {"HuggingFaceVLM": "huggingface", "load_model": "registry", "model_names": "registry"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
