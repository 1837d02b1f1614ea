"""Merges dropped visual tokens: averaged into clusters, or into the most similar remaining token."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Clusters:
    """Tokens that each replace several.

    Attributes:
        tokens: Int[C], the token whose place each cluster takes.
        hidden: Float[C, D], the mean of the members.
    """

    tokens: torch.Tensor
    hidden: torch.Tensor


def clustered_dropped(hidden: torch.Tensor, scores: torch.Tensor, dropped: torch.Tensor, share: float = 0.3) -> Clusters:
    """The best of the dropped tokens of one prompt, clustered, each cluster averaged into one token.

    Source: SparseVLM version 1 (github.com/Gumpest/SparseVLMs, 26a5f48): of n dropped tokens the m = int(0.3 n) + 1 with the
    highest scores go into m // 10 + 1 clusters. The released code puts the clusters after the last kept visual token; here a
    cluster takes the place of its centre, so that positions ascend. Its noise of 1e-6, which breaks ties between equal
    densities, is left out: of equally dense tokens the earlier counts as denser.

    Args:
        hidden: Float[T, D].
        scores: Float[T], before any debiasing.
        dropped: Bool[T].
        share: of the dropped tokens to merge; the others are lost.
    """
    places = dropped.nonzero()[:, 0]
    if not len(places):
        return Clusters(places, hidden[places])
    order = scores[places].argsort(descending=True, stable=True)[: min(len(places), int(len(places) * share) + 1)]
    merged = places[order]
    centres, cluster = density_peaks(hidden[merged].float(), len(merged) // 10 + 1)
    sums = torch.zeros(len(centres), hidden.shape[1], device=hidden.device).index_add(0, cluster, hidden[merged].float())
    sizes = torch.bincount(cluster, minlength=len(centres))[:, None]
    tokens, position = merged[centres].sort()
    return Clusters(tokens, (sums / sizes)[position].to(hidden.dtype))


def density_peaks(points: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters of points around those that are dense and far from denser ones.

    Source: Du et al. 2016 (DPC-KNN), as in SparseVLM: density = exp(-mean squared distance to the `count` nearest, itself among
    them), distances over the root of the dimension.

    Args:
        points: Float[n, D].
        count: of clusters, at most n.

    Returns:
        Int[count], the centres by descending weight, and Int[n], the cluster of each point.
    """
    n = len(points)
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") / points.shape[1] ** 0.5
    density = (-distance.topk(count, dim=1, largest=False).values.square().mean(dim=1)).exp()
    rank = torch.empty(n, dtype=torch.long, device=points.device)
    rank[density.argsort(descending=True, stable=True)] = torch.arange(n, device=points.device)
    denser = rank[None, :] < rank[:, None]
    separation = torch.where(denser, distance, distance.max()).min(dim=1).values
    centres = (separation * density).argsort(descending=True, stable=True)[:count]
    cluster = distance[:, centres].argmin(dim=1)
    cluster[centres] = torch.arange(count, device=points.device)  # a centre may be equal to another
    return centres, cluster


def merged_into_similar(hidden: torch.Tensor, ranked: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Merges `count` tokens of the worse half of a prompt's ranked tokens into the most similar token of the better half.

    Source: TokenCarve (github.com/ShawnTan86/TokenCarve, a57bd59): A is the better half of the ranked tokens and B the others;
    the `count` tokens of B with the highest cosine to any of A leave; each of A becomes the mean of itself and those merged into
    it.

    Args:
        hidden: Float[T, D].
        ranked: Int[K], tokens that were kept, the best first.
        count: how many to merge; at most half of them are.

    Returns:
        Int[K - count], the tokens that stay, ascending, and Float[T, D], the hidden states with the means.
    """
    half = len(ranked) // 2
    count = min(half, count)
    if not count:
        return ranked.sort().values, hidden
    better, worse = ranked[:half], ranked[half:]
    unit = torch.nn.functional.normalize(hidden.float(), dim=-1)
    likeness, nearest = (unit[worse] @ unit[better].T).max(dim=1)
    leaving = likeness.argsort(descending=True, stable=True)[:count]
    target = nearest[leaving]
    sums = hidden[better].float().index_add(0, target, hidden[worse[leaving]].float())
    sizes = 1 + torch.bincount(target, minlength=half)
    merged = hidden.clone()
    merged[better] = (sums / sizes[:, None]).to(hidden.dtype)
    stays = torch.ones(len(worse), dtype=torch.bool, device=hidden.device)
    stays[leaving] = False
    return torch.cat([better, worse[stays]]).sort().values, merged
