"""PyramidDrop: fewer and fewer visual tokens, by the attention of the instruction's last token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lad_eval.attention.pruning.debiased import DebiasedPruner
from lad_eval.attention.pruning.schedule import PYRAMIDDROP

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.pruning.stages import StageInput


@dataclass(frozen=True)
class PyramidDrop(DebiasedPruner):
    """Prunes in three stages, each by the attention that the instruction's last token is about to pay in the coming layer.

    Source: Xing et al. 2024, arXiv 2410.17247; github.com/Cooperx521/PyramidDrop, 6444f30: before layers 2, 10 and 20 of 32, to
    0.32, 0.16 and 0.08 of the tokens for a mean of 128 of 576. The released code renumbers positions; here tokens keep theirs.

    Args:
        layer: of the first stage; the later stages are as far into the layers after it as published.
    """

    name: ClassVar[str] = "pyramiddrop"
    padding: ClassVar[float] = 0.01

    def _layers(self, depth: int) -> tuple[int, ...]:
        return PYRAMIDDROP.layers(depth, self.layer)

    def _shares(self, mean: torch.Tensor) -> list[torch.Tensor]:
        return PYRAMIDDROP.shares(mean)

    def _attention(self, inputs: StageInput, stage: int) -> torch.Tensor:
        from lad_eval.attention.pruning.scores import pyramiddrop

        return pyramiddrop(inputs.coming(), inputs.layout.instruction_end, inputs.remaining)
