"""Which tokens of a prompt belong to which image."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lad_eval.errors import UnsupportedModelError

NOT_FOR_THE_MODEL = frozenset({"text_replacement_offsets", "labels"})
"""Entries of a processor's output that must be removed before the model is called (PaliGemma's always has labels)."""
# The most tokens of an image's label, and of what a template puts between it and the image.
_LABEL = 32


@dataclass(frozen=True)
class Spans:
    """Token ranges of the images of every row, half open, in the padded sequence.

    Attributes:
        image: Int[batch, N, 2], from an image's first to its last image token, including what a family puts between an image's
            own tokens (row breaks, tile marks).
        delimited: Int[batch, N, 2], including the surrounding special tokens that all images of the row share, and the image's
            label.
        owner: Int[batch, T], the image of each visual token, by index, and -1 elsewhere: text, padding, and what a family puts
            between an image's own tokens.
        label: Int[batch, N], how many tokens from each label's beginning on stand before what `delimited` has without labels;
            None: images have no labels.
    """

    image: torch.Tensor
    delimited: torch.Tensor
    owner: torch.Tensor
    label: torch.Tensor | None = None

    @property
    def length(self) -> int:
        """Tokens of the padded sequence, T."""
        return self.owner.shape[1]

    def extended(self, count: int) -> Spans:
        """Spans of the same prompts with `count` text tokens appended."""
        return replace(self, owner=torch.nn.functional.pad(self.owner, (0, count), value=-1))

    def in_labels(self) -> torch.Tensor:
        """Bool[batch, T]: the tokens of the images' labels, and what a template puts between a label and its image."""
        if self.label is None:
            return torch.zeros_like(self.owner, dtype=torch.bool)
        start, tokens = self.delimited[..., 0], torch.arange(self.length)[None, :, None]
        return ((tokens >= start[:, None]) & (tokens < (start + self.label)[:, None])).any(dim=-1)

    def membership(self, device: torch.device | str) -> torch.Tensor:
        """Float[batch, length, 2 N]: 1 where a token lies in an image's span; the N plain spans, then the N delimited ones."""
        ends = torch.cat([self.image, self.delimited], dim=1).to(device)
        tokens = torch.arange(self.length, device=device)[None, :, None]
        return ((tokens >= ends[:, None, :, 0]) & (tokens < ends[:, None, :, 1])).float()


def span_options(processor: Any) -> dict[str, bool]:
    """Options with which the processor reports the number of tokens of every image, for `image_spans`."""
    return {"return_text_replacement_offsets": True} if hasattr(processor, "get_text_with_replacements") else {}


def image_token_id(model_or_config: Any) -> int:
    """Id of the token whose embeddings the model replaces by an image's features.

    Raises:
        UnsupportedModelError: the configuration names none.
    """
    config = getattr(model_or_config, "config", model_or_config)
    for entry in ("image_token_id", "image_token_index"):
        if isinstance(token := getattr(config, entry, None), int):
            return token
    raise UnsupportedModelError(
        f"{_name(config)} is not supported: its configuration names no image token (image_token_id), so images cannot be found."
    )


def image_spans(
    model_or_config: Any,
    processor: Any,
    inputs: Mapping[str, Any],
    n_images: int,
    *,
    image_sizes: Sequence[Sequence[tuple[int, int]]] | None = None,
) -> Spans:
    """Spans of `n_images` images in every row of a batch.

    The image tokens of a row are cut, in order, by the number of them that each image became. That number is read from the
    placeholder's replacement text when the processor reports it (see `span_options`), else from `image_grid_thw`, else all images
    of a row have the same one because they have the same size. A row's spans do not depend on the rest of the batch.

    Args:
        model_or_config: its configuration names the image token.
        processor: that made `inputs`; its tokenizer names the special tokens.
        inputs: the processor's output: input_ids Int[batch, T], attention_mask, and text_replacement_offsets if requested. The
            latter is not an input of the model: see `NOT_FOR_THE_MODEL`.
        n_images: number of images per row.
        image_sizes: (height, width) of every image as given to the processor, row by row; for processors that report no counts.

    Raises:
        UnsupportedModelError: the padding is on the right, or which tokens belong to which image cannot be determined.
    """
    ids = inputs["input_ids"].cpu()
    mask = inputs.get("attention_mask")
    if mask is not None and not bool(mask[:, -1].all()):
        raise UnsupportedModelError("The batch is padded on the right; set the tokenizer's padding_side to 'left'.")
    token = image_token_id(model_or_config)
    counts = _token_counts(model_or_config, processor, inputs, ids, token, n_images, image_sizes)
    return cut_spans(ids, token, counts, processor.tokenizer)


def cut_spans(ids: torch.Tensor, token: int, counts: Sequence[Sequence[int]], tokenizer: Any) -> Spans:
    """Spans of images whose numbers of tokens are known.

    Args:
        ids: Int[batch, T].
        token: the image token's id.
        counts: tokens of every image, row by row; they add up to the image tokens of the row.
        tokenizer: names the special tokens.
    """
    special = _special_ids(tokenizer, token)
    plain, delimited = [], []
    owner = torch.full(ids.shape, -1, dtype=torch.long)
    for b, (row, row_counts) in enumerate(zip(ids.cpu(), counts, strict=True)):
        visual = (row == token).nonzero()[:, 0]
        spans = _cut(visual.tolist(), row_counts)
        plain.append(spans)
        delimited.append(_widen(spans, row.tolist(), special))
        owner[b, visual] = torch.arange(len(row_counts)).repeat_interleave(torch.tensor(row_counts))
    return Spans(torch.tensor(plain), torch.tensor(delimited), owner)


def labelled_spans(spans: Spans, ids: torch.Tensor, labels: Sequence[Sequence[str]], decode: Callable[[list[int]], str]) -> Spans:
    """The spans with the delimited ones widened to the label before each image.

    A label begins with the last token from which on the text before an image, without white space, contains it.

    Args:
        spans: of `image_spans`.
        ids: Int[batch, T].
        labels: texts, row by row, one for each image.
        decode: maps token ids to their text.

    Raises:
        UnsupportedModelError: an image's label is not the text before it.
    """
    delimited = spans.delimited.clone()
    for b, row in enumerate(ids.tolist()):
        floor = 0
        for k, label in enumerate(labels[b]):
            start, wanted = int(delimited[b, k, 0]), "".join(label.split())
            places = range(start - 1, max(floor, start - _LABEL) - 1, -1)
            begin = next((i for i in places if wanted in "".join(decode(row[i:start]).split())), None)
            if begin is None:
                raise UnsupportedModelError(f"The prompt lacks {label!r} before image {k + 1}; leave out methods with labelled.")
            delimited[b, k, 0] = begin
            floor = int(delimited[b, k, 1])
    return replace(spans, delimited=delimited, label=spans.delimited[..., 0] - delimited[..., 0])


def _token_counts(
    model_or_config: Any,
    processor: Any,
    inputs: Mapping[str, Any],
    ids: torch.Tensor,
    token: int,
    n_images: int,
    image_sizes: Sequence[Sequence[tuple[int, int]]] | None,
) -> list[list[int]]:
    totals = (ids == token).sum(dim=1).tolist()
    name = _name(getattr(model_or_config, "config", model_or_config))
    replacements = inputs.get("text_replacement_offsets")
    if replacements:
        text = processor.tokenizer.convert_ids_to_tokens(token)
        counts = [[part["replacement"].count(text) for part in row if part["type"] == "image"] for row in replacements]
    elif (grid := inputs.get("image_grid_thw")) is not None and len(grid) == len(totals) * n_images:
        merge = int(getattr(processor.image_processor, "merge_size", 1)) ** 2
        counts = (grid.prod(dim=-1) // merge).reshape(-1, n_images).tolist()
    elif image_sizes is not None and all(len({tuple(size) for size in row}) == 1 for row in image_sizes):
        counts = [[total // n_images] * n_images for total in totals]
    else:
        raise UnsupportedModelError(
            f"{name}: {type(processor).__name__} does not say how many tokens each image became; prepare all images at one size."
        )
    for row_counts, total in zip(counts, totals, strict=True):
        if len(row_counts) != n_images or sum(row_counts) != total or min(row_counts) < 1:
            raise UnsupportedModelError(
                f"{name} is not supported: its prompt holds {total} image tokens, which are not those of {n_images} images "
                f"({len(row_counts)} images of {row_counts} tokens are expected)."
            )
    return counts


def _cut(positions: Sequence[int], counts: Sequence[int]) -> list[tuple[int, int]]:
    spans, start = [], 0
    for count in counts:
        spans.append((positions[start], positions[start + count - 1] + 1))
        start += count
    return spans


def _widen(spans: Sequence[tuple[int, int]], row: Sequence[int], special: frozenset[int]) -> list[tuple[int, int]]:
    """Extends all spans together while their adjacent tokens are the same special token and belong to one span only."""
    grown = list(spans)
    for side in (-1, 1):
        while True:
            temporary = [start - 1 if side < 0 else end for start, end in grown]
            if (
                min(temporary) < 0
                or max(temporary) >= len(row)
                or len({row[i] for i in temporary}) > 1
                or row[temporary[0]] not in special
            ):
                break
            wider = [(start - 1, end) if side < 0 else (start, end + 1) for start, end in grown]
            if any(left[1] > right[0] for left, right in itertools.pairwise(wider)):
                break
            grown = wider
    return grown


def _special_ids(tokenizer: Any, image_token: int) -> frozenset[int]:
    added = {index for index, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, image_token}
    return frozenset((added | set(tokenizer.all_special_ids)) - ends)


def _name(config: Any) -> str:
    return str(getattr(config, "model_type", None) or type(config).__name__)
