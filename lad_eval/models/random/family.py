"""What is told about a family, once for its tiny and its real sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TINY_TEXT: Mapping[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}
"""The decoder of most tiny models."""


@dataclass(frozen=True)
class Shape:
    """Numbers of one size, in the words of the family's configuration classes.

    Attributes:
        text: the decoder.
        vision: the image encoder.
        top: the model as a whole.
        images: the processor's geometry, read by the family's `processor`.
    """

    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    top: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """A family of image-text-to-text models.

    Attributes:
        model_type: transformers' name of the architecture.
        text_type: the decoder's `model_type`, where the architecture leaves it open.
        vision_type: the same of the image encoder.
        tokens: arguments of `make_tokenizer`.
        token_ids: configuration entries that hold the id of a special token, or the ids of several.
        template: chat template, in the family's form.
        processor: makes the family's processor, but for its chat template, from (tokenizer, shape).
        shapes: by size name; the tiny one is "".
        since: the first release of transformers that has the architecture and gets it right, where the oldest one that is
            supported here does not.
    """

    model_type: str
    tokens: Mapping[str, Any]
    token_ids: Mapping[str, str | tuple[str, ...]]
    template: str
    processor: Callable[[Any, Shape], Any]
    shapes: Mapping[str, Shape]
    text_type: str | None = None
    vision_type: str | None = None
    since: str | None = None
