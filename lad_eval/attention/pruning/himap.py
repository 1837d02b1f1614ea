"""HiMAP: ranks by the attention of the text first, and of the images in a later layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from lad_eval.attention.pruning.debiased import DebiasedPruner
from lad_eval.attention.pruning.schedule import HIMAP

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.pruning.stages import StageInput


@dataclass(frozen=True)
class HiMAP(DebiasedPruner):
    """Prunes by the attention of all text after the images, and in a later layer by that of the visual tokens to each other.

    Source: HiMAP, 6c279e7: before layer 2, and before layer 8 of 32, to 115 and 90 tokens for a mean of 128 of 576. The second
    sum is over a causal matrix and favours early tokens; no trend is taken out of it.

    Args:
        layer: of the first stage; the later stage is as far into the layers after it as published.
    """

    name: ClassVar[str] = "himap"

    def _layers(self, depth: int) -> tuple[int, ...]:
        return HIMAP.layers(depth, self.layer)

    def _shares(self, mean: torch.Tensor) -> list[torch.Tensor]:
        return HIMAP.shares(mean)

    def _attention(self, inputs: StageInput, stage: int) -> torch.Tensor:
        from lad_eval.attention.pruning.scores import himap_image, himap_text, text_after_images

        visual = inputs.layout.visual
        if stage:
            return himap_image(inputs.attention, visual, inputs.remaining)
        return himap_text(inputs.attention, text_after_images(visual, inputs.layout.attended), inputs.remaining)
