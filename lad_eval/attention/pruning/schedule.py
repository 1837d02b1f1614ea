"""How many tokens are kept at each of several layers: as published for one number of tokens, extended to any other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Schedule:
    """Tokens that leave at several layers.

    For a mean share m, share_i = m ^ a_i of the tokens are kept from the i-th layer on, with the exponents a_i that give
    the published shares at the published m. So 1.0 keeps all tokens at every layer and 0 none, unlike with a common factor.

    Attributes:
        stages: decoder layer, and share of the tokens that stay from it on; both as published, ascending and descending.
        depth: decoder layers of the model that it was published for.
        mean: m as published, the mean over the layers as its authors count it.
    """

    stages: tuple[tuple[int, float], ...]
    depth: int = 32
    mean: float = 128 / 576

    def layers(self, depth: int, first: int) -> tuple[int, ...]:
        """Layers for a decoder of `depth` layers: `first`, and the others as far into the layers after it as published.

        Every stage has its own layer, so in shallow decoders they are adjacent; stages without a layer are left out.
        """
        published = self.stages[0][0]
        count = max(1, min(len(self.stages), depth - first))
        layers = [first]
        for index, (layer, _) in enumerate(self.stages[1:count], start=1):
            near = first + _rounded((layer - published) * (depth - first), self.depth - published)
            layers.append(min(depth - count + index, max(layers[-1] + 1, near)))
        return tuple(layers)

    def shares(self, mean: torch.Tensor) -> list[torch.Tensor]:
        """The share of all tokens to keep at every stage, shaped like `mean`, the mean share over the layers."""
        return [mean.double() ** (math.log(share) / math.log(self.mean)) for _, share in self.stages]


def _rounded(numerator: int, denominator: int) -> int:
    """The nearest whole number, halves up: `round` rounds them to even."""
    return (2 * numerator + denominator) // (2 * denominator)


# LLaVA-1.5 7B, 576 visual tokens, 128 of them kept on average.
PYRAMIDDROP = Schedule(((2, 0.32), (10, 0.16), (20, 0.08)))
"""github.com/Cooperx521/PyramidDrop, 6444f30, as arXiv 2508.17807 runs it."""
SPARSEVLM = Schedule(((3, 303 / 576), (7, 110 / 576), (16, 36 / 576)))
"""github.com/Gumpest/SparseVLMs, 26a5f48, version 1; tokens leave after layers 2, 6 and 15, so before the next."""
SPARSEVLM_PLUS = Schedule(((3, 238 / 576), (7, 108 / 576), (16, 60 / 576)))
"""The same, version 2."""
HIMAP = Schedule(((2, 115 / 576), (8, 90 / 576)))
"""HiMAP, 6c279e7, as arXiv 2508.17807 runs it."""
