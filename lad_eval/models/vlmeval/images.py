"""Assigns the image tokens of a prompt made by a VLMEvalKit class to its images.

The prompt is known only when it reaches `generate`: its tokens and the other inputs. A single image has all image tokens. With
several images, reliable facts decide, in this order: the processor's own count (`image_grid_thw`), a marker token that the family
writes once per image, one run of image tokens per image, and a family with one row of pixels per image. Where none of them
decides, an error is raised.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lad_eval.attention.spans import Spans, cut_spans, image_token_id
from lad_eval.errors import UnsupportedModelError

# Tokens that a family writes once per image, whatever its tiles: the processor's attribute, and the place of the token.
# Idefics3's and SmolVLM's last tile is the whole image; Pixtral's rows and LFM2-VL's tiles are followed by an end token.
_MARKS: tuple[tuple[str, str], ...] = (
    ("global_image_tag", "before last tile"),
    ("global_image_token", "before last tile"),
    ("image_end_token", "after last tile"),
)
# `model_type` of families whose `pixel_values` have one row per image, and that use equally many tokens for images of one size.
_ROW_AN_IMAGE = frozenset({"llava", "vipllava", "llava_next", "llava_onevision"})
_CONTEXT = "img_context_token_id"  # InternVL's remote code keeps the image token on the model, set by its `chat`


@dataclass(frozen=True)
class ImageFacts:
    """What is known of the images without the prompt.

    Attributes:
        n_images: of the request.
        equal_sizes: whether all image files have one size.
    """

    n_images: int
    equal_sizes: bool


def spans_in(
    ids: torch.Tensor, inputs: Mapping[str, Any], models: Sequence[Any], processor: Any, images: ImageFacts, name: str
) -> Spans:
    """Spans of the images in a prompt.

    Args:
        ids: Int[1, T], the prompt as it goes to the decoder.
        inputs: the other inputs of `generate`.
        models: the model whose `generate` is called and the models that contain it; one of them names the image token.
        processor: of the VLMEvalKit model, or its tokenizer alone.
        images: what is known of the images.
        name: for error texts.

    Raises:
        UnsupportedModelError: the image tokens cannot be assigned to the images.
    """
    row = ids[0].tolist()
    token = _image_token(models, processor, name)
    positions = [i for i, other in enumerate(row) if other == token]
    tokenizer = getattr(processor, "tokenizer", processor)
    counts = _counts(row, positions, inputs, models, processor, images)
    if counts is None or len(counts) != images.n_images or min(counts, default=0) < 1 or sum(counts) != len(positions):
        raise UnsupportedModelError(
            f"{name} is not supported here: its prompt holds {len(positions)} image tokens in {len(_runs(positions))} runs, and "
            f"nothing says which of them belong to which of {images.n_images} images."
        )
    return cut_spans(ids, token, [counts], tokenizer)


def _image_token(models: Sequence[Any], processor: Any, name: str) -> int:
    for model in models:
        if isinstance(token := getattr(model, _CONTEXT, None), int):
            return token
        try:
            return image_token_id(model)
        except UnsupportedModelError:
            continue
    if isinstance(token := getattr(processor, "image_token_id", None), int):
        return token
    raise UnsupportedModelError(
        f"{name} is not supported: neither its model's configuration nor its processor names an image token (image_token_id)."
    )


def _counts(
    row: Sequence[int],
    positions: Sequence[int],
    inputs: Mapping[str, Any],
    models: Sequence[Any],
    processor: Any,
    images: ImageFacts,
) -> list[int] | None:
    """Number of image tokens of every image, or None if no fact decides."""
    n, total = images.n_images, len(positions)
    if n == 1:
        return [total]
    grid = inputs.get("image_grid_thw")
    if isinstance(grid, torch.Tensor):
        merge = getattr(getattr(processor, "image_processor", None), "merge_size", None)
        if merge is None or len(grid) != n:
            return None
        return [int(cells) // int(merge) ** 2 for cells in grid.prod(dim=-1).tolist()]
    for attribute, place in _MARKS:
        mark = _token_of(processor, attribute)
        if mark is not None and (marked := [i for i, other in enumerate(row) if other == mark]):
            return _by_marks(positions, marked, place) if len(marked) == n else None
    kind = next((str(t) for m in models if (t := getattr(getattr(m, "config", None), "model_type", None))), "")
    runs = _runs(positions)
    if kind == "idefics2":
        # Every image is cut into the same number of tiles, whatever its size.
        tiles = 5 if getattr(getattr(processor, "image_processor", None), "do_image_splitting", False) else 1
        length = {len(run) for run in runs}
        return [total // n] * n if len(runs) == tiles * n and len(length) == 1 else None
    if len(runs) == n:
        return [len(run) for run in runs]
    pixels = inputs.get("pixel_values")
    rows = len(pixels) if isinstance(pixels, torch.Tensor) else None
    if kind in _ROW_AN_IMAGE and rows == n and images.equal_sizes and total % n == 0:
        return [total // n] * n
    return None


def _by_marks(positions: Sequence[int], marked: Sequence[int], place: str) -> list[int] | None:
    """Number of tokens of every image, where image k ends at its marker token, or with the tile that follows it."""
    ends: list[int] = []
    for mark in marked:
        if place == "before last tile":
            run = next((run for run in _runs(positions) if run[0] == mark + 1), None)
            if run is None:
                return None
            ends.append(run[-1])
        else:
            ends.append(mark)
    counts = []
    for start, end in itertools.pairwise([-1, *ends]):
        counts.append(sum(start < position <= end for position in positions))
    return counts


def _runs(positions: Sequence[int]) -> list[list[int]]:
    """Groups of consecutive positions."""
    runs: list[list[int]] = []
    for position in positions:
        if runs and runs[-1][-1] == position - 1:
            runs[-1].append(position)
        else:
            runs.append([position])
    return runs


def _token_of(processor: Any, attribute: str) -> int | None:
    text = getattr(processor, attribute, None)
    tokenizer = getattr(processor, "tokenizer", None)
    if not isinstance(text, str) or tokenizer is None:
        return None
    token = tokenizer.convert_tokens_to_ids(text)
    return token if isinstance(token, int) and token != tokenizer.unk_token_id else None
