"""Models with random weights, created offline: `random:<family>` (tiny) and `random:<family>-<size>` (real size).

For tests, for a user's CI, and for measuring speed without weights. The architecture, the processor class and the form of the
chat template are the family's own; the tokenizer is a small one with the family's special tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lad_eval.errors import UnknownNameError

if TYPE_CHECKING:
    import torch

FAMILIES: tuple[str, ...] = (
    "qwen2-vl",
    "qwen2.5-vl",
    "qwen3-vl",
    "qwen3.5",
    "llava-1.5",
    "llava-next",
    "llava-onevision",
    "internvl",
    "idefics3",
    "smolvlm",
    "gemma3",
    "mistral3",
    "pixtral",
    "paligemma",
    "qwen3-vl-moe",
    "llama4",
    "glm4v",
    "gemma4",
    "ovis2",
    "cohere2-vision",
    "lfm2-vl",
    "minicpm-v-4.6",
    "molmo2",
)
"""Tiny models: 3 or 4 decoder layers, width 64, images of a few tokens."""

SIZES: tuple[str, ...] = (
    "qwen2-vl-2b",
    "qwen2-vl-7b",
    "qwen2.5-vl-3b",
    "qwen2.5-vl-7b",
    "qwen3-vl-4b",
    "qwen3-vl-8b",
    "llava-1.5-7b",
    "llava-next-7b",
    "llava-onevision-7b",
    "internvl3-8b",
    "gemma3-4b",
)
"""Published sizes: the numbers of the published configuration, with our small tokenizer."""


def load_random(
    name: str,
    *,
    seed: int = 0,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    attn_implementation: str | None = None,
) -> tuple[Any, Any]:
    """A transformers model in eval mode, and its processor.

    Args:
        name: an entry of `FAMILIES` or `SIZES`.
        seed: of the weights. A tiny model has the same weights on every device; those of a real size are created on its device.
        dtype: of the weights; None means float32 for tiny models, bfloat16 for real sizes.
        device: None means the CPU. "meta" allocates no weights.
        attn_implementation: as in transformers; None means transformers' default.

    Raises:
        UnknownNameError: no such family or size.
        UnsupportedModelError: the family's processor needs a package that is not installed.
    """
    if name not in FAMILIES and name not in SIZES:
        raise UnknownNameError("model", f"random:{name}", [f"random:{known}" for known in (*FAMILIES, *SIZES)])
    from lad_eval.models.random.build import build

    return build(name, seed=seed, dtype=dtype, device=device, attn_implementation=attn_implementation)
