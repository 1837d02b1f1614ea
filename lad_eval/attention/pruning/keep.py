"""How many visual tokens stay, and which: the highest scores, the earlier of equal ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from lad_eval.errors import UserError

KeepPer = Literal["prompt", "image"]
# Above the rounding of a share that was computed from a number of tokens, and below any share that a user writes.
_ROUNDING = 1e-6


def check_keep(keep: float, name: str) -> None:
    """Whether a number of tokens, or a share as a float, can be kept of some prompt.

    Raises:
        UserError: it cannot.
    """
    if isinstance(keep, bool) or not isinstance(keep, int | float) or not math.isfinite(keep) or keep < 0:
        raise UserError(f"keep of {name} must be a number of tokens or a share from 0.0 to 1.0, not {keep!r}.")
    if isinstance(keep, float) and keep > 1:
        raise UserError(f"keep of {name} must be a share from 0.0 to 1.0 or a whole number of tokens, not {keep!r}.")


def token_groups(owner: torch.Tensor, per: KeepPer) -> torch.Tensor:
    """Int[batch, T]: which tokens compete for the same places; -1 on tokens that are not visual.

    Args:
        owner: Int[batch, T], the image of each visual token, by index, and -1 elsewhere (`Spans.owner`).
        per: "prompt", all visual tokens compete; "image", those of one image.
    """
    return owner if per == "image" else torch.where(owner >= 0, 0, -1)


def group_sizes(groups: torch.Tensor, among: torch.Tensor | None = None) -> torch.Tensor:
    """Int[batch, G]: tokens of every group, among those that are True in Bool[batch, T]."""
    total = max(1, int(groups.max()) + 1)
    member = groups[:, :, None] == torch.arange(total, device=groups.device)
    return (member if among is None else member & among[:, :, None]).sum(dim=1)


def keep_shares(keep: float, sizes: torch.Tensor, name: str) -> torch.Tensor:
    """`keep` as a share of every group: Float64[batch, G]; 1 for groups without tokens.

    Args:
        keep: a whole number of tokens of each group, or a share as a float.
        sizes: Int[batch, G], tokens of the groups.
        name: of the pruner, for errors.

    Raises:
        UserError: a group has fewer tokens, or the number is none that can be kept.
    """
    check_keep(keep, name)
    if isinstance(keep, float):
        return torch.full(sizes.shape, keep, dtype=torch.float64, device=sizes.device)
    filled = sizes[sizes > 0]
    if len(filled) and keep > (smallest := int(filled.min())):
        raise UserError(
            f"keep={keep} of {name} is more than the {smallest} visual tokens that are there; keep fewer, or a share such as 0.25."
        )
    return torch.where(sizes > 0, keep / sizes.clamp(min=1).double(), 1.0)


def token_counts(shares: torch.Tensor, sizes: torch.Tensor, usable: torch.Tensor | None = None) -> torch.Tensor:
    """Int[batch, G]: tokens to keep of every group, rounded down, and no more than there are usable ones.

    Args:
        shares: Float[batch, G], from 0 to 1.
        sizes: Int[batch, G], tokens of the groups.
        usable: Int[batch, G], those that do not show padding; None: all.
    """
    counts = (shares.double() * sizes + _ROUNDING).floor().long()
    return torch.minimum(counts, sizes if usable is None else usable)


def highest(scores: torch.Tensor, groups: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Bool[batch, T]: of every group the tokens with the highest scores; of equal ones the earlier.

    Args:
        scores: Float[batch, T]; those of tokens in no group do not matter.
        groups: Int[batch, T], -1 for tokens that cannot be chosen.
        counts: Int[batch, G], how many to choose; at most the tokens of the group.

    Raises:
        UserError: a score is not a number.
    """
    if bool((scores.isnan() & (groups >= 0)).any()):
        raise UserError("The scores to prune visual tokens by are not numbers; try dtype bfloat16 or float32.")
    order = scores.argsort(dim=1, descending=True, stable=True)
    sorted_groups = groups.gather(1, order)
    chosen = torch.zeros_like(groups, dtype=torch.bool)
    for group in range(counts.shape[1]):
        member = sorted_groups == group
        chosen |= member & (member.cumsum(dim=1) <= counts[:, group : group + 1])
    return torch.zeros_like(chosen).scatter(1, order, chosen)


@dataclass(frozen=True)
class Schedule:
    """Tokens that leave at several layers, as published for one mean number of tokens, and continued to any other.

    At a share m of the tokens on the mean, share_i = m ^ a_i of them stay from the i-th layer on, with the exponents a_i that give
    the published shares at the published mean. So 1.0 keeps all tokens at every layer and 0 none, which no factor would do.

    Attributes:
        stages: decoder layer, and share of the tokens that stay from it on; both as published, ascending and descending.
        depth: decoder layers of the model that it was published for.
        mean: share of the tokens, on the mean, that it was published for.
    """

    stages: tuple[tuple[int, float], ...]
    depth: int = 32
    mean: float = 128 / 576

    def layers(self, depth: int) -> tuple[int, ...]:
        """Layers at the same relative depth in a decoder of `depth` layers, ascending, the first of them at least 1.

        Raises:
            UserError: it has too few layers.
        """
        if depth <= len(self.stages):
            raise UserError(
                f"{len(self.stages)} stages of pruning need a decoder of more than {len(self.stages)} layers, not {depth}."
            )
        layers: list[int] = []
        for index, (layer, _) in enumerate(self.stages):
            # The last stages must find layers behind the earlier ones in shallow decoders.
            latest = depth - len(self.stages) + index
            layers.append(min(latest, max(layers[-1] + 1 if layers else 1, _rounded(layer * depth, self.depth))))
        return tuple(layers)

    def shares(self, mean: torch.Tensor) -> list[torch.Tensor]:
        """For every stage the share of all tokens to keep, shaped as `mean`, the share to keep on the mean."""
        return [mean.double() ** (math.log(share) / math.log(self.mean)) for _, share in self.stages]


def _rounded(numerator: int, denominator: int) -> int:
    """The nearest whole number, halves up: `round` would take them to the even one."""
    return (2 * numerator + denominator) // (2 * denominator)


# LLaVA-1.5 7B, 576 visual tokens, 128 of them on the mean.
PYRAMIDDROP = Schedule(((2, 0.32), (10, 0.16), (20, 0.08)))
"""github.com/Cooperx521/PyramidDrop, 6444f30, as arXiv 2508.17807 runs it."""
SPARSEVLM = Schedule(((3, 303 / 576), (7, 110 / 576), (16, 36 / 576)))
"""github.com/Gumpest/SparseVLMs, 26a5f48, version 1; tokens leave behind layers 2, 6 and 15, so before the next."""
HIMAP = Schedule(((2, 115 / 576), (8, 90 / 576)))
"""HiMAP, 6c279e7, as arXiv 2508.17807 runs it."""
