"""FastV: ranks visual tokens by the attention of the prompt's last token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lad_eval.attention.pruning.debiased import DebiasedPruner

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.pruning.stages import StageInput


@dataclass(frozen=True)
class FastV(DebiasedPruner):
    """Keeps the visual tokens to which the prompt's last token attends most, in the layer below the one they leave before.

    Source: Chen et al. 2024, arXiv 2403.06764; github.com/pkunlp-icler/FastV, d165972, its in-place variant: attention after
    softmax, mean over the heads, ranked once. Published with layer 2 and half of the tokens.
    """

    name: ClassVar[str] = "fastv"

    def _attention(self, inputs: StageInput, stage: int) -> torch.Tensor:
        from lad_eval.attention.pruning.scores import last_token_attention

        return last_token_attention(inputs.attention, inputs.layout.length)
