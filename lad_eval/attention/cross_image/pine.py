"""PINE: every query sees the images in an order of its own, by importance, so that their displayed order has no effect."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lad_eval.attention.interventions.base import Acted, Intervention
from lad_eval.errors import UnsupportedModelError

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.layout import PromptLayout


@dataclass(frozen=True)
class Pine(Intervention):
    """Images in no order: each query sees its own image nearest, then the others, the more important ones nearer.

    Source: PINE, arXiv 2407.01100 (github.com/wzq016/PINE, 5c2e9de), for images in place of documents. Every image sees all
    others whole. In each layer and head, the importance of an image for another is the attention without rotary positions that it
    gets; for the question, token by token. With several rotary axes an image takes as many positions as it moves what follows.
    The pass is a function of the set of images, as under `tied`, but images may differ in size. Images that are equal are tied,
    and keep their displayed order. Tokens of a reply attend as the question's do. In prompts of one image nothing changes.

    Raises:
        UserError: tokens were dropped from the prompt.
        UnsupportedModelError: the model reads images in an order for other reasons: text between them, layers that are recurrent
            or attend within a window; or its positions are not rotary in the usual way.
    """

    name: ClassVar[str] = "pine"
    order_invariant: ClassVar[bool] = True

    def _concerns(self, layout: PromptLayout) -> bool:
        return layout.spans.image.shape[1] > 1

    @contextmanager
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> Iterator[None]:
        from lad_eval.attention.cross_image.placed import PlacedImages
        from lad_eval.attention.hooks import around_attention, attending_layers, decoder_layers
        from lad_eval.attention.layer_hooks import observe_rotary
        from lad_eval.attention.masks import check_entry_masks

        check_entry_masks(model)
        kind = type(model).__name__
        if len(attending_layers(model)) < len(decoder_layers(model)):
            raise UnsupportedModelError(
                f"{kind} has layers without attention, which read images one after the other; leave out pine."
            )
        passes = PlacedImages(model, layout, _segments(layout, kind), acted)
        with ExitStack() as stack:
            stack.enter_context(observe_rotary(model, passes.observe_rotary))
            stack.enter_context(passes.unrotated_keys())
            stack.enter_context(around_attention(model, passes.around))
            yield


def _segments(layout: PromptLayout, kind: str) -> torch.Tensor:
    """Int[batch, N, 2]: the tokens of each image with its delimiters, and with the text that follows every image alike.

    Raises:
        UnsupportedModelError: other text stands between images, or they begin with different tokens.
    """
    segments = layout.spans.delimited.clone()
    for row, (ids, spans) in enumerate(zip(layout.ids.tolist(), layout.spans.delimited.tolist(), strict=True)):
        width = spans[1][0] - spans[0][1]
        following = all(ids[end : end + width] == ids[spans[0][1] : spans[1][0]] for _, end in spans)
        adjoining = all(start == end + width for (_, end), (start, _) in itertools.pairwise(spans))
        alike = len({ids[start] for start, _ in spans}) == 1
        if not (following and adjoining and alike):
            raise UnsupportedModelError(f"{kind} puts text between images, which makes them an order; leave out pine.")
        segments[row, :, 1] += width
    return segments
