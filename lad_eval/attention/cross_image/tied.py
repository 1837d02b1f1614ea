"""Tied positions: the decoder reads the images as a set, so that their displayed order has no effect on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lad_eval.attention.interventions.base import Acted, Intervention
from lad_eval.errors import UnsupportedModelError, UserError

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.hooks import AttentionCall
    from lad_eval.attention.layout import PromptLayout


@dataclass(frozen=True)
class Tied(Intervention):
    """Images without an order: each has the position ids of the first, and all see each other.

    Our variant of order-invariant passes (PINE, arXiv 2407.01100, sorts images by their mutual attention instead). The pass is
    then a function of the set of images: attention moves with them, and the log-probabilities of places are the same for
    every order. So a decision may read attention only: an answer that names a place is right in one of N cyclic shifts.
    An image's label is part of it: where images keep their labels (the prompt variant labelled-places), the answer is the same
    image in every order. In prompts of one image nothing changes.

    Raises:
        UserError: images of a prompt, with their labels, differ in their number of tokens.
        UnsupportedModelError: the model reads images in an order for other reasons: text between them, layers that are recurrent
            or attend within a window, or positions that are not rotary.
    """

    name: ClassVar[str] = "tied"
    order_invariant: ClassVar[bool] = True

    def _concerns(self, layout: PromptLayout) -> bool:
        return layout.spans.image.shape[1] > 1

    @contextmanager
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> Iterator[None]:
        from lad_eval.attention.hooks import attending_layers, decoder_layers, transform_mask
        from lad_eval.attention.layer_hooks import transform_positions
        from lad_eval.attention.masks import OpenedMasks, ahead_between_images, reach

        kind, layers = type(model).__name__, attending_layers(model)
        if len(layers) < len(decoder_layers(model)):
            raise UnsupportedModelError(
                f"{kind} has layers without attention, which read images one after the other; leave out tied."
            )
        source = _same_place_in_first(layout, kind)
        whole = replace(layout.spans, image=layout.spans.delimited)
        masks = OpenedMasks(layout.length, layers, ahead_between_images(whole), 0.0, acted)

        def transform(call: AttentionCall) -> Any:
            window, chunk = reach(call)
            if call.is_prefill(layout.length) and min(window or layout.length, chunk or layout.length) < layout.length:
                raise UnsupportedModelError(f"{kind} attends within a window in layer {call.layer}; leave out tied.")
            return masks(call)

        def tie(positions: torch.Tensor) -> torch.Tensor:
            if positions.shape[-1] != layout.length:
                return positions
            acted()
            rows = positions.expand(*positions.shape[:-2], len(source), -1)
            return rows.gather(-1, source.to(rows.device).expand(rows.shape))

        with ExitStack() as stack:
            stack.enter_context(transform_mask(model, transform))
            stack.enter_context(transform_positions(model, tie))
            yield


def _same_place_in_first(layout: PromptLayout, kind: str) -> torch.Tensor:
    """Int[batch, T]: for each token of an image, with delimiters, the first image's token in the same place; else itself.

    Raises:
        UserError: images of a prompt differ in their number of tokens.
        UnsupportedModelError: there is text between images, or the first label begins with another token than the others.
    """
    import torch

    spans = layout.spans.delimited
    lengths = spans[..., 1] - spans[..., 0]
    if bool((lengths != lengths[:, :1]).any()):
        with_labels = "" if layout.spans.label is None else ", with their labels"
        raise UserError(
            f"tied needs images of equally many tokens{with_labels}; use --image-preparation protocol, or leave it out."
        )
    if bool((spans[:, 1:, 0] != spans[:, :-1, 1]).any()):
        raise UnsupportedModelError(f"{kind} puts text between images, which makes them an order; leave out tied.")
    if layout.spans.label is not None:
        _check_labels(layout, layout.spans.label, kind)
    first, last = spans[:, :1, 0], spans[:, -1:, 1]
    tokens = torch.arange(layout.length).expand(len(spans), -1)
    inside = (tokens >= first) & (tokens < last)
    return torch.where(inside, first + (tokens - first) % lengths[:, :1], tokens)


def _check_labels(layout: PromptLayout, label: torch.Tensor, kind: str) -> None:
    """Refuses labels that are other tokens in another place, apart from the name in them.

    Raises:
        UnsupportedModelError: the first label begins with another token than the others, or text follows a label.
    """
    begins = layout.spans.delimited[..., 0]
    first = layout.ids.gather(1, begins)
    if bool((first != first[:, :1]).any()):
        raise UnsupportedModelError(f"{kind} reads the first image's label as other tokens than the next ones; leave out tied.")
    for row, starts, lengths in zip(layout.ids.tolist(), begins.tolist(), label.tolist(), strict=True):
        for start, length in zip(starts, lengths, strict=True):
            if not layout.decode(row[start : start + length]).rstrip().endswith(":"):
                raise UnsupportedModelError(f"{kind} numbers images after their labels, which makes an order; leave out tied.")
