"""Attention weights of single query tokens, computed separately from the attention function, which returns none."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lad_eval.attention.hooks import AttentionCall
from lad_eval.errors import UnsupportedModelError

# Number of rows to compute at once: memory grows with batch x heads x CHUNK x keys, whatever the number of rows.
CHUNK = 256


def attention_rows(call: AttentionCall, rows: torch.Tensor) -> torch.Tensor:
    """Post-softmax attention of some queries: Float32[batch, H, R, keys].

    Args:
        call: before the attention function runs.
        rows: Int[batch, R], indices of the queries.

    Raises:
        UnsupportedModelError: an unsupported form of mask, or a position bias.
    """
    query, key, options = call.query, call.key, call.options
    if options.get("position_bias") is not None:
        raise UnsupportedModelError(f"{type(call.module).__name__} is not supported: its attention adds a position bias.")
    batch, heads, _, width = query.shape
    scaling = options.get("scaling")
    rows = rows.to(query.device)
    chosen = query.gather(2, rows[:, None, :, None].expand(-1, heads, -1, width)).float()
    chosen = chosen * (width**-0.5 if scaling is None else scaling)
    # Query heads that share a key head are one matrix, so that the keys are neither repeated nor copied.
    chosen = chosen.reshape(batch, key.shape[1], heads // key.shape[1] * rows.shape[1], width)
    scores = torch.matmul(chosen, key.float().transpose(-1, -2)).reshape(batch, heads, rows.shape[1], key.shape[2])
    if (cap := options.get("softcap")) is not None:
        scores = torch.tanh(scores / cap) * cap
    scores = _masked(scores, call, rows)
    sink = options.get("s_aux")
    if sink is None:
        return scores.softmax(dim=-1)
    total = torch.logaddexp(scores.logsumexp(dim=-1), sink.float().reshape(1, heads, 1))
    return (scores - total[..., None]).exp()


def summed_rows(call: AttentionCall, chosen: torch.Tensor) -> torch.Tensor:
    """Attention to each key, the mean over the heads and the sum over some queries: Float32[batch, keys].

    Args:
        call: before the attention function runs.
        chosen: Bool[batch, queries]; rows of a batch may choose different numbers of queries, also none.

    Raises:
        UnsupportedModelError: see `attention_rows`.
    """
    total = torch.zeros(len(chosen), call.key.shape[2], device=call.query.device)
    for _, attention, counted in row_chunks(call, chosen):
        total += (attention.mean(dim=1) * counted[..., None]).sum(dim=1)
    return total


def row_chunks(call: AttentionCall, chosen: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Post-softmax attention of some queries, CHUNK of them at a time.

    Args:
        call: before the attention function runs.
        chosen: Bool[batch, queries]; rows of a batch may choose different numbers, also none.

    Yields:
        Int[batch, R], the indices of the queries; their attention, Float32[batch, H, R, keys]; and Bool[batch, R], False where a
        row of the batch chose fewer.

    Raises:
        UnsupportedModelError: see `attention_rows`.
    """
    chosen = chosen.to(call.query.device)
    counts = chosen.sum(dim=1)
    order = chosen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    for start in range(0, int(counts.max()), CHUNK):
        place = torch.arange(start, min(start + CHUNK, int(counts.max())), device=chosen.device)
        counted = place < counts[:, None]
        # Rows of the batch with fewer queries are padded with their last one; a padding query could have all keys masked.
        rows = torch.where(counted, order[:, place], chosen.shape[1] - 1)
        yield rows, attention_rows(call, rows), counted


def _masked(scores: torch.Tensor, call: AttentionCall, rows: torch.Tensor) -> torch.Tensor:
    """Scores with masked keys set to minus infinity (or lowered by an additive mask)."""
    mask, keys = call.mask, scores.shape[-1]
    if isinstance(mask, torch.Tensor) and mask.dim() == 4:
        # A mask of one row applies to every query.
        index = (rows if mask.shape[2] > 1 else torch.zeros_like(rows)).to(mask.device)
        index = index[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3])
        row = mask.expand(len(rows), -1, -1, -1).gather(2, index)[..., :keys]
        return scores.masked_fill(~row, -torch.inf) if row.dtype == torch.bool else scores + row.float()
    if isinstance(mask, torch.Tensor) and mask.dim() == 2:
        seen = torch.nn.functional.pad(mask[:, :keys].bool(), (0, max(0, keys - mask.shape[1])))
        scores = scores.masked_fill(~seen[:, None, None], -torch.inf)
    elif mask is not None:
        raise UnsupportedModelError(
            f"{type(mask).__name__} attention masks are not supported; use attn_implementation sdpa, eager or flash_attention_2."
        )
    end = torch.full_like(rows, keys)
    if call.is_causal:
        # A static cache is longer than the prompt that fills it.
        end = (rows + 1).clamp(max=keys)
    window = call.options.get("sliding_window")
    first = torch.zeros_like(end) if window is None else (end - window).clamp(min=0)
    place = torch.arange(keys, device=scores.device)
    hidden = (place < first[..., None]) | (place >= end[..., None])
    return scores.masked_fill(hidden[:, None], -torch.inf)
