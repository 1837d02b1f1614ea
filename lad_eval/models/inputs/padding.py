"""Padding of images: padding to a square, and the share of padding in each visual token, for any image processor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from lad_eval.attention.spans import Spans
from lad_eval.errors import UnsupportedModelError

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]
CLIP_MEAN: Colour = (122, 116, 104)
"""Mean colour of CLIP's training images, 0 to 255 and rounded down, as in LLaVA-1.5."""


def mean_colour(image_processor: Any) -> Colour:
    """The colour that an image processor normalises to 0, rounded down; CLIP_MEAN if it has no mean."""
    mean = getattr(image_processor, "image_mean", None)
    if not isinstance(mean, list | tuple) or len(mean) != 3:
        return CLIP_MEAN
    red, green, blue = (min(255, max(0, int(part * 255))) for part in mean)
    return red, green, blue


def pad_to_square(image: Image, colour: Colour) -> Image:
    """The image centred in a square of its longer side.

    Source: `expand2square` of LLaVA-1.5 (github.com/haotian-liu/LLaVA), whose padding this is.

    Args:
        image: in RGB.
        colour: of the padding.
    """
    from PIL import Image as Pil

    side = max(image.size)
    if image.size == (side, side):
        return image
    square = Pil.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def as_it_is(image: Image) -> Image:
    """The image unchanged."""
    return image


def padding_share(
    image_processor: Any,
    options: Mapping[str, Any],
    sizes: Sequence[Sequence[tuple[int, int]]],
    spans: Spans,
    prepare: Callable[[Image], Image] = as_it_is,
) -> torch.Tensor:
    """Share of padding in the pixels that each visual token covers: Float[batch, T], 0 elsewhere.

    Padding pixels are those that are equal for black images and for white ones. Which token covers which pixels is known where
    each image becomes one square of pixels and a square grid of tokens, row by row.

    Args:
        image_processor: takes images nested by request, as those of transformers do.
        options: of the image processor.
        sizes: height and width of every picture, row by row, before anything is done to it.
        spans: of the pictures.
        prepare: applied to an image before the image processor.

    Raises:
        UnsupportedModelError: there is padding, and an image does not become one square grid of tokens.
    """
    shares = torch.zeros(spans.owner.shape)
    known: dict[tuple[tuple[int, int], ...], torch.Tensor | None] = {}
    for b, row in enumerate(sizes):
        key = tuple(row)
        if key not in known:
            known[key] = _padded_pixels(image_processor, options, key, prepare)
        padded = known[key]
        if padded is None:
            continue
        for image, square in enumerate(padded):
            tokens = (spans.owner[b] == image).nonzero()[:, 0]
            shares[b, tokens] = _pooled(square, len(tokens), image_processor)
    return shares


def _padded_pixels(
    image_processor: Any, options: Mapping[str, Any], sizes: Sequence[tuple[int, int]], prepare: Callable[[Image], Image]
) -> torch.Tensor | None:
    """Bool[N, H, H] of the padded pixels of a request's pictures; None where there are none."""
    from PIL import Image as Pil

    black, white = (
        image_processor([[prepare(Pil.new("RGB", (width, height), colour)) for height, width in sizes]], **options)[
            "pixel_values"
        ]
        for colour in ("black", "white")
    )
    same = black == white
    if not bool(same.any()):
        return None
    if same.dim() < 4 or same.shape[-1] != same.shape[-2] or math.prod(same.shape[:-3]) != len(sizes):
        raise _refused(image_processor)
    pixels: torch.Tensor = same.reshape(len(sizes), *same.shape[-3:]).all(dim=1)
    return pixels


def _pooled(padded: torch.Tensor, tokens: int, image_processor: Any) -> torch.Tensor:
    """Float[tokens]: the share of True in each cell of the square grid that the tokens make."""
    side, pixels = math.isqrt(tokens), padded.shape[0]
    if side * side != tokens or pixels % side:
        raise _refused(image_processor)
    return padded.float().reshape(side, pixels // side, side, pixels // side).mean(dim=(1, 3)).flatten()


def _refused(image_processor: Any) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{type(image_processor).__name__} pads these pictures, and nothing says which visual tokens show it; use "
        "--image-preparation protocol, which needs no padding."
    )
