"""Which entries of an attention mask lead from one image to another, and masks with these opened or closed.

Masks keep the form in which the implementation takes them: Bool for sdpa (True is seen), Float for eager (added to the scores).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lad_eval.attention.hooks import AttentionCall, attention_implementation
from lad_eval.attention.masks import reach


@dataclass(frozen=True)
class OpenedRows:
    """The queries that attend to more keys where images attend to each other.

    Attributes:
        index: Int[batch, R], the queries; rows with fewer of them are padded with others.
        gains: Bool[batch, R], False at padding.
        mask: of these queries, [batch, 1 or H, R, keys], with the additional entries opened.
    """

    index: torch.Tensor
    gains: torch.Tensor
    mask: torch.Tensor


def key_tokens(features: torch.Tensor, owner: torch.Tensor, rho: float) -> torch.Tensor:
    """Int[batch, T]: the image of each key token, by index, and -1 elsewhere.

    The max(1, floor(rho n)) of an image's n visual tokens with the largest L2 norms; among equal norms the first.

    Args:
        features: Float[batch, T, D], the decoder's input.
        owner: Int[batch, T], the image of each visual token, -1 elsewhere.
        rho: a share in (0, 1].
    """
    owner = owner.to(features.device)
    norms = features.detach().float().norm(dim=-1)
    order = norms.argsort(dim=1, descending=True, stable=True)
    ranked = owner.gather(1, order)
    chosen = torch.full_like(owner, -1)
    for image in range(int(owner.max()) + 1):
        member = ranked == image
        # Without rounding errors: 0.29 of 100 tokens are 29.
        count = (member.sum(dim=1, keepdim=True).double() * rho + 1e-6).floor().clamp(min=1)
        chosen = torch.where(member & (member.cumsum(dim=1) <= count), image, chosen)
    return torch.full_like(owner, -1).scatter(1, order, chosen)


def opened_rows(call: AttentionCall, key_owner: torch.Tensor) -> OpenedRows | None:
    """The key tokens that do not attend to all key tokens of other images, with a mask in which they do.

    Where a layer attends within a window or a chunk, so do they. None: no query gains an entry.

    Args:
        call: of a prefill.
        key_owner: of `key_tokens`.
    """
    owner, places = _at_keys(call, key_owner)
    candidates, real = _front(owner[:, : call.query.shape[2]] >= 0)
    theirs = owner.gather(1, candidates)[:, :, None]
    between = real[:, :, None] & (owner[:, None] >= 0) & (theirs != owner[:, None])
    mask = mask_rows(call, candidates)
    seen = _seen(mask)
    opened = between[:, None] & ~seen & _within_reach(call, places.gather(1, candidates), places, seen)
    # A mask may differ between heads; a row gains entries if it does in any head.
    order, gains = _front(opened.any(dim=3).any(dim=1))
    if not bool(gains.any()):
        return None
    rows = order[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3])
    opened, mask = opened.gather(2, rows), mask.gather(2, rows)
    mask = mask | opened if mask.dtype == torch.bool else mask.masked_fill(opened, 0.0)
    return OpenedRows(candidates.gather(1, order), gains, mask)


def closed_between_images(call: AttentionCall, image: torch.Tensor) -> torch.Tensor | None:
    """The call's mask with all entries from one image to another closed; None: they were closed already.

    Args:
        call: of a prefill.
        image: Int[batch, T], the image of each token, -1 elsewhere.
    """
    owner, _ = _at_keys(call, image)
    queries = owner[:, : call.query.shape[2], None]
    between = ((queries >= 0) & (owner[:, None] >= 0) & (queries != owner[:, None]))[:, None]
    every = torch.arange(call.query.shape[2], device=owner.device).expand(len(owner), -1)
    mask = mask_rows(call, every)
    if not bool((between & _seen(mask)).any()):
        return None
    if mask.dtype == torch.bool:
        return mask & ~between
    return mask.masked_fill(between, torch.finfo(mask.dtype).min)


def mask_rows(call: AttentionCall, rows: torch.Tensor) -> torch.Tensor:
    """Some queries' rows of a call's mask, [batch, 1 or H, R, keys], in the form that the implementation takes.

    Where the call has no mask, the rows are those that the implementation applies without one.

    Args:
        call: of a prefill, with a mask of single entries or none.
        rows: Int[batch, R], indices of the queries.
    """
    keys = call.key.shape[2]
    if call.mask is not None:
        mask = call.mask.expand(len(rows), *call.mask.shape[1:])
        gathered: torch.Tensor = mask.gather(2, rows[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3]))
        return gathered
    place = torch.arange(keys, device=rows.device)
    seen = (place <= rows[..., None]) if call.is_causal else torch.ones(*rows.shape, keys, dtype=torch.bool, device=rows.device)
    if attention_implementation(call.module) == "sdpa":
        return seen[:, None]
    blank = torch.zeros(seen.shape, dtype=call.query.dtype, device=seen.device)
    return blank.masked_fill(~seen, torch.finfo(blank.dtype).min)[:, None]


def _within_reach(call: AttentionCall, queries: torch.Tensor, keys: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Bool[batch, 1, R, keys]: keys in the same window or chunk as a query.

    Args:
        call: of the layer.
        queries: Int[batch, R], the position of each query in the prompt.
        keys: Int[batch, keys], the position of each key.
        seen: Bool[batch, H, R, keys], of the call's mask. A chunk begins at the first key that its queries attend to.
    """
    window, chunk = reach(call)
    near = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=keys.device)
    if window is not None:
        near = near & ((queries[:, :, None] - keys[:, None]).abs() < window)[:, None]
    if chunk is not None:
        first = keys.gather(1, seen.any(dim=1).int().argmax(dim=2))
        near = near & ((keys[:, None] >= first[..., None]) & (keys[:, None] < first[..., None] + chunk))[:, None]
    return near


def _at_keys(call: AttentionCall, owner: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Int[batch, keys]: `owner`, Int[batch, T], at a call's keys, -1 at keys outside the prompt; and the keys' positions."""
    owner = owner.to(call.query.device)
    if call.positions is None:
        owner = torch.nn.functional.pad(owner, (0, call.key.shape[2] - owner.shape[1]), value=-1)
        return owner, torch.arange(owner.shape[1], device=owner.device).expand_as(owner)
    places = call.positions.to(owner.device)
    return torch.where(places >= 0, owner.gather(1, places.clamp(min=0)), -1), places


def _seen(mask: torch.Tensor) -> torch.Tensor:
    return mask if mask.dtype == torch.bool else mask >= torch.finfo(mask.dtype).min / 2


def _front(chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Int[batch, R]: indices of True in Bool[batch, T], in order, then padding; Bool[batch, R]: False at padding."""
    widest = int(chosen.sum(dim=1).max())
    order = chosen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :widest]
    return order, chosen.gather(1, order)
