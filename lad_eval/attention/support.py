"""Checks, before evidence is collected, that a model has what evidence needs."""

from __future__ import annotations

from typing import Any

import torch

from lad_eval.attention.hooks import AttentionCall, attention_layers, observe_attention
from lad_eval.attention.spans import image_token_id
from lad_eval.errors import UnsupportedModelError


def check_supported(model: Any, processor: Any) -> None:
    """Checks that a model has what evidence needs, and runs a few words to check that its attention can be observed.

    Raises:
        UnsupportedModelError: one line that says what is missing.
    """
    name = type(model).__name__
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or getattr(processor, "image_processor", None) is None:
        raise UnsupportedModelError(
            f"{name} is not supported: its processor ({type(processor).__name__}) lacks a tokenizer or an image processor."
        )
    if not (getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)):
        raise UnsupportedModelError(
            f"{name} is not supported: its processor has no chat template; use a checkpoint tuned to follow instructions."
        )
    image_token_id(model)
    expected = attention_layers(model)
    seen: set[int] = set()

    def note(call: AttentionCall) -> None:
        seen.add(call.layer)

    device = model.get_input_embeddings().weight.device
    if device.type == "meta":
        return
    words = torch.tensor([tokenizer.encode("Answer: 1", add_special_tokens=False)], device=device)
    with torch.no_grad(), observe_attention(model, note):
        try:
            model(input_ids=words, attention_mask=torch.ones_like(words), use_cache=False)
        # The model's own code may raise any exception: the error names its type, and no evidence is collected.
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, NotImplementedError) as fault:
            reason = (str(fault).strip().splitlines() or [""])[0]
            raise UnsupportedModelError(
                f"{name} is not supported: it fails on a prompt of a few words ({type(fault).__name__}: {reason})."
            ) from fault
    if missing := sorted(set(expected) - seen):
        layers = ", ".join(map(str, missing))
        raise UnsupportedModelError(
            f"{name} is not supported: {type(expected[missing[0]]).__name__} (decoder layers {layers}) does not go through "
            "transformers' attention functions, so its attention cannot be read."
        )
