"""The same architecture with random weights: the control for whatever is measured of a trained model's insides."""

from __future__ import annotations

import copy
from typing import Any

import torch

from lad_eval.models.releases import repair


def untrained(model: Any, seed: int, device: Any = None) -> Any:
    """A model of the same configuration, dtype and attention implementation, with freshly initialised weights.

    Args:
        model: of transformers; it is not changed.
        seed: of the weights.
        device: of the new model; None: that of the model.
    """
    device = model.device if device is None else torch.device(device)
    implementation = getattr(model.config, "_attn_implementation", None)
    options = {} if implementation is None else {"attn_implementation": implementation}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(seed)
        made = type(model)._from_config(copy.deepcopy(model.config), dtype=model.dtype, **options)
        fill_zeros(made, float(getattr(model.config.get_text_config(), "initializer_range", None) or 0.02))
    repair(made)
    return made.to(device).eval()


def fill_zeros(model: Any, std: float) -> None:
    """Replaces all-zero weights by random ones: with Gemma 3's image projection at zero images have no effect."""
    for weights in model.parameters():
        if weights.dim() > 1 and not weights.is_meta and not bool(weights.any()):
            torch.nn.init.normal_(weights, std=std)
