"""Faults of single releases of transformers that keep a model from answering at all, repaired from outside by hooks."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import torch

_REPAIRED: WeakSet[torch.nn.Module] = WeakSet()


def repair(model: Any) -> None:
    """Makes a model answer that its release of transformers broke; any other model stays as it is.

    transformers 5.24.0: Llama 4 reads `image_outputs` of its language model's output, which has none, and fails at every prompt.
    """
    if getattr(model.config, "model_type", None) != "llama4":
        return
    language_model = getattr(model, "language_model", None)
    if isinstance(language_model, torch.nn.Module) and language_model not in _REPAIRED:
        language_model.register_forward_hook(_with_image_outputs)
        _REPAIRED.add(language_model)


def _with_image_outputs(module: torch.nn.Module, args: Any, output: Any) -> Any:
    if not isinstance(output, tuple) and not hasattr(output, "image_outputs"):
        output.image_outputs = None
    return output
