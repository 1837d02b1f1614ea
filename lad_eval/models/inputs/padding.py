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


def unchanged(image: Image) -> Image:
    """The image unchanged."""
    return image


def padding_share(
    image_processor: Any,
    options: Mapping[str, Any],
    sizes: Sequence[Sequence[tuple[int, int]]],
    spans: Spans,
    prepare: Callable[[Image], Image] = unchanged,
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
        shares[b] = pooled(known[key], spans.owner[b], type(image_processor).__name__)
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
    return padded_pixels(black, white, len(sizes), type(image_processor).__name__)


def padded_pixels(black: torch.Tensor, white: torch.Tensor, images: int, name: str) -> torch.Tensor | None:
    """Bool[images, H, H] of the pixels that do not depend on the picture; None where all do.

    Args:
        black: pixels that a model is given for black pictures, in any shape that holds one square of pixels an image.
        white: the same for white pictures of the same sizes.
        images: how many there are.
        name: of what prepared them, for the error.

    Raises:
        UnsupportedModelError: there are such pixels, and an image is not one square of them.
    """
    same = black == white
    if not bool(same.any()):
        return None
    if same.dim() < 4 or same.shape[-1] != same.shape[-2] or math.prod(same.shape[:-3]) != images:
        raise _refused(name)
    pixels: torch.Tensor = same.reshape(images, *same.shape[-3:]).all(dim=1)
    return pixels


def pooled(padded: torch.Tensor | None, owner: torch.Tensor, name: str) -> torch.Tensor:
    """Float[T]: the share of padding in the pixels that each visual token of a prompt covers, 0 elsewhere.

    Args:
        padded: as `padded_pixels` gives it.
        owner: Int[T], the image of each token, -1 for text.
        name: of what prepared them, for the error.

    Raises:
        UnsupportedModelError: an image's tokens are not one square grid.
    """
    shares = torch.zeros(owner.shape)
    if padded is None:
        return shares
    for image, square in enumerate(padded):
        tokens = (owner == image).nonzero()[:, 0]
        side, pixels = math.isqrt(len(tokens)), square.shape[0]
        if side * side != len(tokens) or not side or pixels % side:
            raise _refused(name)
        cells = square.float().reshape(side, pixels // side, side, pixels // side)
        shares[tokens] = cells.mean(dim=(1, 3)).flatten()
    return shares


def _refused(name: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{name} pads these pictures, and it is unknown which visual tokens show padding; use "
        "--image-preparation protocol, which needs no padding."
    )
