"""Faults of releases of transformers: repaired from outside, or refused."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any
from weakref import WeakSet

import torch

from lad_eval.errors import UnsupportedModelError

# Architectures that earlier releases have, but get wrong: the first release that works, and what is wrong before it.
_FIRST_RELEASES = {"minicpmv4_6": ("5.19", "earlier ones mix up images of unequal sizes")}
_REPAIRED: WeakSet[torch.nn.Module] = WeakSet()


def repair(model: Any) -> None:
    """Repairs a model that this release of transformers breaks; any other model is left unchanged.

    transformers 5.24.0: Llama 4 reads `image_outputs` of its language model's output, which has none, and fails at every prompt.

    Raises:
        UnsupportedModelError: the release gets the architecture wrong in a way that cannot be repaired from outside.
    """
    kind = str(getattr(getattr(model, "config", None), "model_type", ""))
    if kind in _FIRST_RELEASES:
        first, reason = _FIRST_RELEASES[kind]
        check_transformers(kind, first, reason)
    language_model = getattr(model, "language_model", None)
    if kind == "llama4" and isinstance(language_model, torch.nn.Module) and language_model not in _REPAIRED:
        language_model.register_forward_hook(_with_image_outputs)
        _REPAIRED.add(language_model)


def check_transformers(name: str, first: str, reason: str) -> None:
    """Refuses a release of transformers that is too old for a model.

    Raises:
        UnsupportedModelError: it is older than `first`.
    """
    from packaging.version import Version

    installed = version("transformers")
    if Version(installed) < Version(first):
        raise UnsupportedModelError(
            f"{name} needs transformers {first} or later, as {reason}; {installed} is installed: pip install -U transformers"
        )


def _with_image_outputs(module: torch.nn.Module, args: Any, output: Any) -> Any:
    if not isinstance(output, tuple) and not hasattr(output, "image_outputs"):
        output.image_outputs = None
    return output
