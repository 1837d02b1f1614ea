"""Scores that pruners rank visual tokens by: Float32[batch, T] over the tokens of the prompt, higher is better.

They are computed from an attention call whose keys are the tokens that have not left (`AttentionCall.positions`); a token that
has left scores 0, and the scores of text tokens are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lad_eval.attention.hooks import AttentionCall
from lad_eval.attention.pruning.compaction import Slots
from lad_eval.attention.recorder import last_row
from lad_eval.attention.rows import row_chunks, summed_rows
from lad_eval.errors import UnsupportedModelError


def over_prompt(values: torch.Tensor, call: AttentionCall, length: int) -> torch.Tensor:
    """Values of a call's keys, scattered to the tokens of the prompt: Float[batch, ..., T]; 0 at tokens that have left.

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
    """Attention of the prompt's last token, mean over the heads, after softmax: Float32[batch, T]."""
    with torch.no_grad():
        return over_prompt(last_row(call).mean(dim=1), call, length)


def pyramiddrop(call: AttentionCall, instruction_end: torch.Tensor, remaining: torch.Tensor) -> torch.Tensor:
    """Attention of the instruction's last token, mean over the heads.

    Source: PyramidDrop (github.com/Cooperx521/PyramidDrop, 6444f30): by the queries and keys of the next layer.

    Args:
        call: of a prefill.
        instruction_end: Int[batch], index in the prompt (`PromptLayout.instruction_end`).
        remaining: Bool[batch, T], the tokens that have not left.
    """
    return _sum(call, torch.nn.functional.one_hot(instruction_end, remaining.shape[1]).bool(), remaining)


def text_after_images(visual: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """Bool[batch, T]: the tokens after the prompt's last visual token.

    Args:
        visual: Bool[batch, T], the visual tokens.
        attended: Bool[batch, T], False on padding of the batch.
    """
    behind = visual.flip(1).cumsum(dim=1).flip(1) == 0
    return behind & attended


def sparsevlm_raters(embeddings: torch.Tensor, visual: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """Bool[batch, T]: the raters, text tokens after the images that are more similar to the images than the mean text token.

    Source: SparseVLM (github.com/Gumpest/SparseVLMs, 26a5f48): those with r_j > mean r, where r is the mean over the visual
    tokens v of softmax_j(v . t_j). Where all r are equal, every token is a rater: the released code has none then, and its scores
    are NaN.

    Args:
        embeddings: Float[batch, T, D], what enters the decoder's first layer.
        visual: Bool[batch, T].
        attended: Bool[batch, T], False on padding of the batch.
    """
    text = text_after_images(visual, attended)
    raters = torch.zeros_like(text)
    for b in range(len(text)):
        images, words = embeddings[b, visual[b].to(embeddings.device)].float(), text[b].nonzero()[:, 0]
        nearness = (images @ embeddings[b, words.to(embeddings.device)].float().T).softmax(dim=1).mean(dim=0).cpu()
        above = nearness > nearness.mean()
        raters[b, words[above] if bool(above.any()) else words] = True
    return raters


def sparsevlm(call: AttentionCall, raters: torch.Tensor, remaining: torch.Tensor) -> torch.Tensor:
    """The raters' attention, mean over raters and heads.

    Source: SparseVLM version 1: attention of layers 2, 6 and 15, to prune after them.

    Args:
        call: of a prefill.
        raters: Bool[batch, T], at least one for every prompt.
        remaining: Bool[batch, T], the tokens that have not left.
    """
    total = _sum(call, raters, remaining)
    return total / raters.sum(dim=1, keepdim=True).to(total.device)


def sparsevlm_plus(
    call: AttentionCall, raters: torch.Tensor, visual: torch.Tensor, remaining: torch.Tensor, rotary: Any
) -> torch.Tensor:
    """The raters' attention divided by the weight of rotary positions alone, mean over raters and half of the heads.

    Source: SparseVLM version 2, "SparseVLM+" (26a5f48, `USE_VERSION=2_0`): the heads are those with the largest sum of such
    attention from raters to visual tokens.

    Args:
        call: of a prefill.
        raters: Bool[batch, T], at least one for every prompt.
        visual: Bool[batch, T].
        remaining: Bool[batch, T], the tokens that have not left.
        rotary: position embeddings of the call's layer, for all T tokens.
    """
    chosen, places = _queries(call, raters, remaining)
    count = call.key.shape[2]
    keys = torch.arange(count, device=places.device).expand(len(places), -1) if call.positions is None else call.positions
    sums = torch.zeros(len(chosen), call.query.shape[1], count, device=call.query.device)
    for rows, attention, counted in row_chunks(call, chosen):
        weights = rotary_weights(rotary, places.gather(1, rows.to(places.device)), keys, call)
        sums += (attention / weights[:, None] * counted[:, None, :, None]).sum(dim=2)
    by_head = over_prompt(sums, call, remaining.shape[1])
    mass = (by_head * (visual.to(remaining.device) & remaining).to(by_head.device)[:, None]).sum(dim=2)
    best = mass.topk(max(1, mass.shape[1] // 2), dim=1).indices
    total = by_head.gather(1, best[:, :, None].expand(-1, -1, by_head.shape[2])).mean(dim=1)
    return total / raters.sum(dim=1, keepdim=True).to(total.device)


def rotary_weights(rotary: Any, queries: torch.Tensor, keys: torch.Tensor, call: AttentionCall) -> torch.Tensor:
    """Weight of a key by rotary positions alone: the scaled product of a query and a key of ones, Float32[batch, R, K].

    It depends on their distance only and may be near or below 0, so it is raised to a hundredth of its value at distance 0.

    Args:
        rotary: cosines and sines, Float[batch or 1, T, d] each, or complex numbers, [batch or 1, T, d / 2].
        queries: Int[batch, R], positions in the prompt.
        keys: Int[batch, K], positions in the prompt; -1 for hidden ones.
        call: of these queries and keys.

    Raises:
        UnsupportedModelError: there are no position embeddings, or they have another form.
    """
    width = call.query.shape[3]
    if isinstance(rotary, torch.Tensor) and rotary.is_complex() and rotary.dim() == 3:
        parts, pairs = (rotary.real, rotary.imag), 2
    elif isinstance(rotary, tuple) and len(rotary) == 2 and all(part.dim() == 3 for part in rotary):
        parts, pairs = rotary, 1
    else:
        raise UnsupportedModelError(
            f"{type(call.module).__name__} has no rotary positions in one table, and sparsevlm-plus needs them; use sparsevlm."
        )
    product = torch.zeros(1, device=call.query.device)
    for part in parts:
        table = part.float().to(call.query.device).expand(len(queries), -1, -1)
        of_queries, of_keys = (
            table.gather(1, at.to(table.device).clamp(min=0)[..., None].expand(-1, -1, table.shape[2])) for at in (queries, keys)
        )
        product = product + pairs * of_queries @ of_keys.transpose(1, 2)
    still = width - pairs * parts[0].shape[2]  # entries that are not rotated
    weights: torch.Tensor = ((product + still) / width**0.5).clamp(min=0.01 * width**0.5)
    return weights


def himap_text(call: AttentionCall, text: torch.Tensor, remaining: torch.Tensor) -> torch.Tensor:
    """Attention of all text tokens after the images, mean over the heads and sum over the tokens.

    Source: HiMAP (6c279e7): attention of layer 1, to prune before layer 2.

    Args:
        call: of a prefill.
        text: Bool[batch, T], see `text_after_images`.
        remaining: Bool[batch, T], the tokens that have not left.
    """
    return _sum(call, text, remaining)


def himap_image(call: AttentionCall, visual: torch.Tensor, remaining: torch.Tensor) -> torch.Tensor:
    """Attention of the visual tokens that have not left, mean over the heads and sum over the tokens.

    Source: HiMAP (6c279e7): attention of layer 7, to prune before layer 8. The sum is over a causal matrix, in which more tokens
    attend to early ones; this bias belongs to the method.

    Args:
        call: of a prefill.
        visual: Bool[batch, T].
        remaining: Bool[batch, T], the tokens that have not left.
    """
    return _sum(call, visual, remaining)


def information(hidden: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """How much each token of a group contributes: the L1 norm of its row of U S, of the group's hidden states H = U S V.

    Source: TokenCarve (github.com/ShawnTan86/TokenCarve, a57bd59). 0 for tokens in no group.

    Args:
        hidden: Float[batch, T, D], what enters the layer that prunes.
        groups: Int[batch, T], -1 for tokens in no group.
    """
    norms = torch.zeros(groups.shape, device=hidden.device)
    groups = groups.to(hidden.device)
    for b, row in enumerate(groups):
        for group in row[row >= 0].unique():
            member = row == group
            left, singular, _ = torch.linalg.svd(hidden[b, member].float(), full_matrices=False)
            norms[b, member] = (left * singular).abs().sum(dim=1)
    return norms


def tokencarve(attention: torch.Tensor, contribution: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Mean of two ranks in the group; the best rank is the number of the group's tokens, the worst is 1.

    Args:
        attention: Float[batch, T], of the last token (`last_token_attention`).
        contribution: Float[batch, T], see `information`.
        groups: Int[batch, T], -1 for tokens in no group.
    """
    return (ranks(attention, groups) + ranks(contribution, groups)) / 2


def ranks(scores: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Float32[batch, T]: in a group of n tokens, n for the highest score to 1 for the lowest, equal ones in order; else 0."""
    groups = groups.to(scores.device)
    order = scores.argsort(dim=1, descending=True, stable=True)
    by_score = groups.gather(1, order)
    points = torch.zeros(scores.shape, device=scores.device)
    for group in range(int(groups.max()) + 1):
        member = by_score == group
        points += (member.sum(dim=1, keepdim=True) + 1 - member.cumsum(dim=1)) * member
    return torch.zeros_like(points).scatter(1, order, points)


def debiased(
    scores: torch.Tensor, visual: torch.Tensor, trends: Sequence[npt.NDArray[np.float64]], padding: torch.Tensor
) -> torch.Tensor:
    """Scores divided by the trend at their index, a_i / f(x_i), and 0 for tokens that show padding.

    Source: arXiv 2508.17807.

    Args:
        scores: Float[batch, T], not negative.
        visual: Bool[batch, T].
        trends: for every prompt Float[L], the positive trend at each of its visual tokens (`Trend.curve`).
        padding: Bool[batch, T].
    """
    divisor = torch.ones_like(scores)
    for b, trend in enumerate(trends):
        divisor[b, visual[b].to(scores.device)] = torch.from_numpy(trend).to(scores)
    return (scores / divisor).masked_fill(padding.to(scores.device), 0.0)


def _sum(call: AttentionCall, chosen: torch.Tensor, remaining: torch.Tensor) -> torch.Tensor:
    """Float32[batch, T]: attention of the chosen tokens that remain, mean over the heads, sum over the tokens."""
    return over_prompt(summed_rows(call, _queries(call, chosen, remaining)[0]), call, chosen.shape[1])


def _queries(call: AttentionCall, chosen: torch.Tensor, remaining: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bool[batch, queries]: which queries of a call are chosen tokens that remain; Int[batch, queries]: their positions."""
    chosen = chosen.to(remaining.device) & remaining
    queries, length = call.query.shape[2], chosen.shape[1]
    if queries == length:
        return chosen, torch.arange(length, device=chosen.device).expand(len(chosen), -1)
    positions = call.positions
    if positions is None or positions.shape[1] != queries:
        # A layer that uses the keys of a lower one has keys of more tokens than it is run for.
        positions = Slots.of(remaining).positions
    if positions.shape[1] != queries:
        raise UnsupportedModelError(
            f"Decoder layer {call.layer} is not run for the tokens whose attention is needed there; choose another layer."
        )
    positions = positions.to(remaining.device)
    return chosen.gather(1, positions.clamp(min=0)) & (positions >= 0), positions
