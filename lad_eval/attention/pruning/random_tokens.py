"""The control of every pruner: random visual tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lad_eval.attention.pruning.pruner import Pruner

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.pruning.stages import StageInput


@dataclass(frozen=True)
class RandomTokens(Pruner):
    """Keeps random visual tokens; which ones depends on the request and the seed alone, not on its batch or its machine.

    Args:
        seed: of the choice.
    """

    name: ClassVar[str] = "random-tokens"
    seed: int = 0

    def _scores(self, inputs: StageInput, stage: int) -> torch.Tensor:
        import torch

        scores = torch.zeros(inputs.remaining.shape)
        for row, visual, key in zip(scores, inputs.layout.visual, inputs.layout.keys, strict=True):
            digest = hashlib.sha256(f"{self.seed}/{inputs.layer}/{key}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            row[visual] = torch.rand(int(visual.sum()), generator=generator)
        return scores.to(inputs.remaining.device)
