"""How many tokens a model's context takes."""

from __future__ import annotations

from typing import Any

# Tokenizers without a length of their own carry a number beyond all sense.
_NO_LENGTH = 10**9
# Scalings under which, by the documentation of transformers, `max_position_embeddings` stays what it was before.
_MULTIPLYING = ("linear", "dynamic", "yarn")


def context_length(config: Any, tokenizer: Any = None) -> int | None:
    """Tokens of the longest sequence that a model takes, its reply counted in; None if nothing says it.

    `max_position_embeddings` of the text configuration, times the factor of its rotary scaling; where the configuration has none,
    the tokenizer's `model_max_length`. A sliding window is not a limit: it bounds how far a layer sees, not how long a text is.

    Args:
        config: of the model, or of its decoder.
        tokenizer: the model's, or None.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(text, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        return max(positions, _scaled(text, positions))
    length = getattr(tokenizer, "model_max_length", None)
    return int(length) if isinstance(length, (int, float)) and 0 < length < _NO_LENGTH else None


def _scaled(text: Any, positions: int) -> int:
    """Positions after the rotary scaling; 0 where there is none, or where it differs from layer to layer."""
    scaling = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    if not isinstance(scaling, dict):
        return 0
    factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    if not isinstance(factor, (int, float)):
        return 0
    if isinstance(original, int):
        return int(original * factor)
    kind = scaling.get("rope_type", scaling.get("type"))
    return int(positions * factor) if kind in _MULTIPLYING else 0
