"""Attention of chosen query tokens, over the tokens of the prompt."""

from __future__ import annotations

import torch

from lad_eval.attention.hooks import AttentionCall
from lad_eval.attention.recorder import last_row


def over_prompt(values: torch.Tensor, call: AttentionCall, length: int) -> torch.Tensor:
    """Values of a call's keys at the tokens of the prompt, Float[batch, ..., T]; 0 at tokens that had left.

    Args:
        values: Float[batch, ..., keys].
        call: of the prompt's prefill.
        length: tokens of the padded prompt, T.
    """
    if call.positions is None:
        return values[..., :length]
    positions = call.positions.to(values.device)
    index = positions.clamp(min=0).reshape(len(positions), *(1,) * (values.dim() - 2), -1).expand_as(values)
    real = (positions >= 0).reshape(len(positions), *(1,) * (values.dim() - 2), -1)
    return values.new_zeros(*values.shape[:-1], length).scatter_add(-1, index, values * real)


def last_token_attention(call: AttentionCall, length: int) -> torch.Tensor:
    """Attention of the prompt's last token, mean of the heads, after softmax: Float32[batch, T]."""
    with torch.no_grad():
        return over_prompt(last_row(call).mean(dim=1), call, length)
