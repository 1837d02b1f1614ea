"""Which tokens of a prompt spell its caption, and how an image's tokens lie on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from lad_eval.attention.layout import PromptLayout
from lad_eval.errors import UnsupportedModelError

# Families whose tokens of an untiled image are its patches, row by row; others resample them, or mark rows in between.
_RASTER = frozenset({"internvl", "llava_onevision"})


def caption_tokens(layout: PromptLayout, captions: Sequence[str | None]) -> torch.Tensor:
    """Bool[batch, T]: the tokens that spell each prompt's caption, those included that spell more than it (a space, a quote).

    Only text after the last image is searched, as no earlier token attends to all images. The caption is searched in the prompt's
    question, or where the prompt does not show the question unchanged, in all of that text, where it must then stand once.

    Args:
        layout: of the prompts.
        captions: of the prompts' requests, row by row.

    Raises:
        UnsupportedModelError: a request has no caption, or a prompt does not show it after its images.
    """
    marked = torch.zeros(layout.ids.shape, dtype=torch.bool)
    for row, (caption, question) in enumerate(zip(captions, layout.questions, strict=True)):
        start = int(layout.visual[row].nonzero()[-1]) + 1
        ids = layout.ids[row, start : layout.length - layout.appended].tolist()
        tokens = None if not (caption or "").strip() else _spelling(layout.decode, ids, str(caption).strip(), question.strip())
        if not tokens:
            raise UnsupportedModelError(
                f"The prompt of sample {layout.sample_ids[row]} does not show its caption {(caption or '')[:40]!r} after its "
                "images, so that it has no token map; leave out the methods that need one."
            )
        marked[row, start + tokens[0] : start + tokens[-1] + 1] = True
    return marked


def _spelling(decode: Callable[[list[int]], str], ids: list[int], caption: str, question: str) -> list[int]:
    """Indices of the tokens whose text overlaps the caption's, spaces aside; empty if it is not shown, or not only once."""
    whole = _packed(decode(ids))
    where = _place(whole, caption, question)
    if where is None:
        return []
    # A prefix's text may end in half a character, which the whole text does not have.
    ends = [_common(_packed(decode(ids[: count + 1])), whole) for count in range(len(ids))]
    starts = [0, *ends[:-1]]
    return [index for index, (start, end) in enumerate(zip(starts, ends, strict=True)) if start < where[1] and end > where[0]]


def _place(text: str, caption: str, question: str) -> tuple[int, int] | None:
    """Where the caption stands in a text without spaces: last in its question, else the only place."""
    wanted, begin = _packed(caption), text.rfind(_packed(question))
    matches = list(re.finditer(rf"(?<!\w){re.escape(caption)}(?!\w)", question))
    if begin >= 0 and matches:
        start = begin + len(_packed(question[: matches[-1].start()]))
    elif text.count(wanted) == 1:
        start = text.index(wanted)
    else:
        return None
    return start, start + len(wanted)


def _common(one: str, other: str) -> int:
    """Number of characters that two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _packed(text: str) -> str:
    return "".join(text.split())


def token_grids(model: Any, processor: Any, inputs: Mapping[str, Any], owner: torch.Tensor, n_images: int) -> torch.Tensor:
    """Int[batch, N, 3]: each image's number of tokens, and the height and width of the grid of patches that its first ones are.

    Height and width are 0 where a family's tokens are not patches in rows, or an image is cut into tiles.

    Args:
        model: names its family.
        processor: that made the inputs.
        inputs: of the batch.
        owner: Int[batch, T], as in `Spans`.
        n_images: N.
    """
    counts = torch.stack([(owner == image).sum(dim=1) for image in range(n_images)], dim=1)
    grids = torch.stack([counts, torch.zeros_like(counts), torch.zeros_like(counts)], dim=-1)
    grid = inputs.get("image_grid_thw")
    if grid is not None and len(grid) == counts.numel():
        merge = int(getattr(processor.image_processor, "merge_size", 1))
        sides = (grid[:, 1:].cpu() // merge).reshape(*counts.shape, 2)
        whole = (sides.prod(dim=-1) == counts) & (grid[:, 0].cpu().reshape(counts.shape) == 1)
    elif str(getattr(model.config, "model_type", "")) in _RASTER and _untiled(inputs, counts.numel()):
        side = counts.double().sqrt().floor().long()
        sides = torch.stack([side, side], dim=-1)
        # LLaVA-OneVision ends an image by a token for the line break.
        whole = (counts - side**2) <= 1
    else:
        return grids
    grids[..., 1:] = torch.where(whole[..., None], sides, 0)
    return grids


def _untiled(inputs: Mapping[str, Any], images: int) -> bool:
    """Whether every image is one tile."""
    pixels = inputs.get("pixel_values")
    if not isinstance(pixels, torch.Tensor) or pixels.shape[0] != images:
        return False
    return pixels.dim() == 4 or (pixels.dim() == 5 and pixels.shape[1] == 1)
