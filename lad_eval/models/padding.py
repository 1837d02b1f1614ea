"""Which visual tokens show what an image processor put around a picture, found without knowing the processor's code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lad_eval.attention.spans import Spans
from lad_eval.errors import UnsupportedModelError


def padding_share(
    image_processor: Any, options: Mapping[str, Any], sizes: Sequence[Sequence[tuple[int, int]]], spans: Spans
) -> torch.Tensor:
    """Of the pixels that each visual token covers, the share that shows padding: Float[batch, T], 0 elsewhere.

    Padding are the pixels that are the same for black pictures and for white ones. Which token covers which pixels is known where
    each picture becomes one square of pixels, and a square grid of tokens, row by row.

    Args:
        image_processor: takes images nested by request, as those of transformers do.
        options: of the image processor.
        sizes: height and width of every picture, row by row.
        spans: of the pictures.

    Raises:
        UnsupportedModelError: there is padding, and pictures become something else than one square grid of tokens.
    """
    shares = torch.zeros(spans.owner.shape)
    known: dict[tuple[tuple[int, int], ...], torch.Tensor | None] = {}
    for b, row in enumerate(sizes):
        key = tuple(row)
        if key not in known:
            known[key] = _padded_pixels(image_processor, options, key)
        padded = known[key]
        if padded is None:
            continue
        for image, square in enumerate(padded):
            tokens = (spans.owner[b] == image).nonzero()[:, 0]
            shares[b, tokens] = _pooled(square, len(tokens), image_processor)
    return shares


def _padded_pixels(image_processor: Any, options: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> torch.Tensor | None:
    """Bool[N, H, H] of the padded pixels of a request's pictures; None where there are none."""
    from PIL import Image

    black, white = (
        image_processor([[Image.new("RGB", (width, height), colour) for height, width in sizes]], **options)["pixel_values"]
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
