"""Attention within the windows of a vision tower, windows of one length in one call.

Under `sdpa` transformers runs such a tower (Qwen2.5-VL's) window by window: hundreds of small calls for an image. Its
implementations of flash attention get the whole sequence in one call, with the places where windows begin. The function here is
registered under a name of that kind, and is `sdpa` over windows as a batch. No model is patched: its vision configuration names
the function.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch

NAME = "lad_eval_flash_windows"
"""The implementation's name in transformers, which passes window boundaries to names that contain "flash"."""

_REMEMBERED = 4
_lengths: list[tuple[weakref.ref[torch.Tensor], list[int]]] = []


def attend_within_windows(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers for sequences of windows, each of which attends to itself.

    Args:
        module: the attention module.
        query: Float[1, H, T, D], as are `key` and `value`.
        key: of the same windows.
        value: of the same windows.
        attention_mask: None.
        cu_seq_lens_q: Int[windows + 1], the place of each window's first token, and T.
        scaling: of the scores; None: D ** -0.5.
        dropout: of the weights.
        options: not used.

    Returns:
        Float[1, T, H, D], and None.
    """
    lengths = _window_lengths(cu_seq_lens_q)
    if len(set(lengths)) == 1:
        shape = len(lengths), lengths[0]
        return _batched(query, key, value, shape, scaling, dropout), None
    answer = query.new_empty(query.shape[0], query.shape[2], query.shape[1], query.shape[3])
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    for length in sorted(set(lengths)):
        first = torch.tensor(
            [start for start, extent in zip(starts, lengths, strict=False) if extent == length], device=query.device
        )
        tokens = (first[:, None] + torch.arange(length, device=query.device)).flatten()
        parts = [part[:, :, tokens] for part in (query, key, value)]
        answer[:, tokens] = _batched(parts[0], parts[1], parts[2], (len(first), length), scaling, dropout)
    return answer, None


def batch_windows(model: Any) -> bool:
    """Lets a model's vision tower attend to windows as a batch, if it runs them one by one; returns whether it does now.

    That is a tower with windows under `sdpa`. Features stay the same but for rounding.

    Args:
        model: an image-text-to-text model of transformers.
    """
    vision: Any = getattr(model.config, "vision_config", None)
    if getattr(vision, "_attn_implementation", None) == NAME:
        return True
    windowed = hasattr(vision, "window_size") and hasattr(vision, "fullatt_block_indexes")
    if not windowed or vision._attn_implementation != "sdpa" or not hasattr(model, "set_attn_implementation"):
        return False
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend_within_windows)
    model.set_attn_implementation({"vision_config": NAME})
    return bool(vision._attn_implementation == NAME)


def _batched(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    shape: tuple[int, int],
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    """Float[1, W L, H, D] of W windows of length L, `shape`, one after another."""

    def windows(part: torch.Tensor) -> torch.Tensor:
        return part[0].reshape(part.shape[1], *shape, part.shape[3]).transpose(0, 1)

    inner = torch.nn.functional.scaled_dot_product_attention(
        windows(query), windows(key), windows(value), dropout_p=dropout, scale=scaling
    )
    return inner.transpose(1, 2).flatten(0, 1)[None]


def _window_lengths(boundaries: torch.Tensor) -> list[int]:
    """Lengths of the windows; read from the device once for all layers that are given the same tensor."""
    for reference, lengths in _lengths:
        if reference() is boundaries:
            return lengths
    lengths = (boundaries[1:] - boundaries[:-1]).tolist()
    _lengths.append((weakref.ref(boundaries), lengths))
    del _lengths[:-_REMEMBERED]
    return lengths
