"""The visual tokens to keep: in each group a number of tokens, those with the highest scores."""

from __future__ import annotations

import torch

from lad_eval.errors import UnsupportedModelError

# Larger than the rounding error of a share computed from a number of tokens, smaller than differences that a user writes.
_ROUNDING = 1e-6


def group_sizes(groups: torch.Tensor, total: int | None = None) -> torch.Tensor:
    """Int[batch, G]: tokens of every group.

    Args:
        groups: Int[batch, T], the group of each token, -1 for none.
        total: number of groups; None: up to the last one with tokens in any row.
    """
    total = max(1, int(groups.max()) + 1) if total is None else total
    return (groups[:, :, None] == torch.arange(total, device=groups.device)).sum(dim=1)


def token_counts(shares: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Int[batch, G]: a share of every group's tokens, rounded down.

    Args:
        shares: Float64[batch, G], from 0 to 1; a share k / n of a group of n tokens gives exactly k.
        sizes: Int[batch, G].
    """
    return (shares * sizes + _ROUNDING).floor().long()


def highest(scores: torch.Tensor, groups: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Bool[batch, T]: the tokens with the highest scores, `counts` of each group; among equal scores the first.

    A group with fewer tokens keeps all of them.

    Args:
        scores: Float[batch, T], read at tokens of groups.
        groups: Int[batch, T], -1 for tokens that cannot be chosen.
        counts: Int[batch, G].

    Raises:
        UnsupportedModelError: a score is not a number.
    """
    if bool((scores.isnan() & (groups >= 0)).any()):
        raise UnsupportedModelError("The scores to prune visual tokens by are not numbers; try dtype bfloat16 or float32.")
    order = scores.argsort(dim=1, descending=True, stable=True)
    ranked = groups.gather(1, order)
    chosen = torch.zeros_like(groups, dtype=torch.bool)
    for group in range(counts.shape[1]):
        member = ranked == group
        chosen |= member & (member.cumsum(dim=1) <= counts[:, group : group + 1])
    return torch.zeros_like(chosen).scatter(1, order, chosen)
