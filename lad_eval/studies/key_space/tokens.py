"""Which tokens of a prompt are compared: visual tokens, and text without special tokens; question and template separately."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lad_eval.attention.layout import PromptLayout

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

VISUAL, QUESTION, TEMPLATE = 0, 1, 2
"""Kinds of tokens: image features; text of the question; text that the chat template puts around it."""
PER_SAMPLE = 64
PER_LAYER = 5_000
"""The most tokens of a modality, per sample and per layer."""


@dataclass(frozen=True)
class TokenSample:
    """Tokens chosen from a batch of prompts, one entry per token.

    Attributes:
        row: Int[n], the prompt.
        column: Int[n], the place in the padded prompt.
        kind: Int[n], VISUAL, QUESTION or TEMPLATE.
        ahead: Bool[n], whether it stands before the prompt's last visual token.
    """

    row: Ints
    column: Ints
    kind: Ints
    ahead: Bools


def tokens_per_sample(samples: int) -> int:
    """How many tokens of a modality are taken from each sample, so that a layer has at most PER_LAYER."""
    return max(1, min(PER_SAMPLE, PER_LAYER // max(1, samples)))


def special_tokens(tokenizer: Any) -> frozenset[int]:
    """Ids of control tokens: ends, delimiters, row breaks; the first of a prompt is an attention sink."""
    added = {index for index, token in getattr(tokenizer, "added_tokens_decoder", {}).items() if token.special}
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
    return frozenset(added | ends | set(tokenizer.all_special_ids))


def text_tokens(layout: PromptLayout, special: frozenset[int]) -> torch.Tensor:
    """Bool[batch, T]: neither visual, nor special, nor padding."""
    control = torch.isin(layout.ids, torch.tensor(sorted(special), dtype=layout.ids.dtype))
    return layout.attended & ~layout.visual & ~control


def question_starts(layout: PromptLayout) -> list[int]:
    """Index of the first token of each prompt's question, as `PromptLayout.instruction_end` is that of its last.

    Raises:
        UnsupportedModelError: a prompt does not contain its question unchanged.
    """
    rows = zip(layout.ids.tolist(), layout.instruction_end.tolist(), layout.questions, strict=True)
    return [_start(layout.decode, ids, end, "".join(question.split())) for ids, end, question in rows]


def _start(decode: Callable[[list[int]], str], ids: list[int], end: int, question: str) -> int:
    """The last token from which the text up to `end`, without its spaces, is at least as long as the question."""
    low, high = 0, end
    while low < high:
        middle = (low + high + 1) // 2
        if len("".join(decode(ids[middle : end + 1]).split())) >= len(question):
            low = middle
        else:
            high = middle - 1
    return low


def sample_tokens(layout: PromptLayout, special: frozenset[int], most: int, seed: int) -> TokenSample:
    """At most `most` visual tokens of each prompt, and as many of its text, chosen at random.

    The choice depends on the seed and the request alone, not on the batch.

    Raises:
        UnsupportedModelError: see `question_starts`.
    """
    text = text_tokens(layout, special).numpy()
    visual = layout.visual.numpy()
    ends = layout.instruction_end.tolist()
    parts: list[tuple[Ints, Ints, Ints, npt.NDArray[np.bool_]]] = []
    for row, (start, end) in enumerate(zip(question_starts(layout), ends, strict=True)):
        chance = np.random.default_rng(_seed(seed, layout.keys[row]))
        pictures = _chosen(np.flatnonzero(visual[row]), most, chance)
        words = _chosen(np.flatnonzero(text[row]), most, chance)
        columns = np.concatenate([pictures, words])
        in_question = (columns >= start) & (columns <= end)
        kind = np.where(np.arange(len(columns)) < len(pictures), VISUAL, np.where(in_question, QUESTION, TEMPLATE))
        last = np.flatnonzero(visual[row]).max(initial=-1)
        parts.append((np.full(len(columns), row), columns, kind, columns < last))
    return TokenSample(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _chosen(places: Ints, most: int, chance: np.random.Generator) -> Ints:
    """Some of the places, in their order; absolute positions play no part, so that padding does not either."""
    return places[np.sort(chance.permutation(len(places))[:most])]


def _seed(seed: int, key: str) -> list[int]:
    return [seed, int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")]
