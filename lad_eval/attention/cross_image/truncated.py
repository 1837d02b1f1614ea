"""Truncated attention: no image of a prompt attends to another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lad_eval.attention.interventions.base import Acted, Intervention

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.hooks import AttentionCall
    from lad_eval.attention.layout import PromptLayout


@dataclass(frozen=True)
class Truncated(Intervention):
    """No image attends to another: mask entries from a token of one image to a token of another are closed, in all layers.

    Source: the rejected answers of CAPL, arXiv 2603.07048 (github.com/yyyxcleo/CAPL, d886687), whose mask for Qwen closes pairs
    inside an image, too; this one does not. Text attends to every image, delimiters are text, and row breaks and tile marks
    inside an image belong to it. A diagnosis of how much a model uses the other images when it encodes one. Prompts of one image
    are not changed.
    """

    name: ClassVar[str] = "truncated"
    idle: ClassVar[str] = "as its images do not attend to each other"
    sole: ClassVar[str] = "cross-image mask"

    def _concerns(self, layout: PromptLayout) -> bool:
        return layout.spans.image.shape[1] > 1

    @contextmanager
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> Iterator[None]:
        from lad_eval.attention.cross_image.masks import closed_between_images
        from lad_eval.attention.hooks import transform_mask
        from lad_eval.attention.masks import HeldByMask, check_entry_masks, image_of_tokens

        check_entry_masks(model)
        image = image_of_tokens(layout.spans)

        def closed_mask(call: AttentionCall) -> torch.Tensor | None:
            return closed_between_images(call, image)

        closed = HeldByMask(closed_mask)

        def transform(call: AttentionCall) -> Any:
            if not call.is_prefill(layout.length) or (mask := closed(call)) is None:
                return call.mask
            acted()
            return mask

        with transform_mask(model, transform):
            yield
