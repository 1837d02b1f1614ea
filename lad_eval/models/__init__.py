"""Models: the VLM protocol, its implementation for image-text-to-text models of transformers, and model names.

`load_model(name)` loads a model by name; `base.VLM` is the protocol that a model of your own must implement. Nothing here imports
torch before it is used.

registry, source, adapters, loading, fingerprint   from a name to a loaded model, and the facts that determine its evidence
base, huggingface, interventions                   the protocols, and the model class for transformers
prompts/                                           the chat message, its date and control tokens, and checks of prompts
inputs/                                            image preparation, padding, and the caches of images and features
inference/                                         batches, candidates' log-probabilities, continuation, generation
server/                                            models behind a server that speaks chat completions
random/, tiny/, vlmeval/                           models with random weights, the embedded models, models of VLMEvalKit
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
