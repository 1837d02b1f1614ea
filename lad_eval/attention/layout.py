"""The parts of a batch of prompts, token by token, for interventions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from lad_eval.attention.spans import Spans
from lad_eval.errors import UnsupportedModelError

# Number of characters to compare to find where a question ends, and of tokens to decode for it.
_ENDING = 24
_WINDOW = 48


@dataclass(frozen=True)
class PromptLayout:
    """The tokens of a batch of left-padded prompts. All tensors are on the CPU.

    Attributes:
        ids: Int[batch, T].
        spans: of the images; `spans.owner` has the exact positions of the visual tokens.
        attended: Bool[batch, T], the attention mask: False on the padding of the batch.
        questions: the text of each prompt before the chat template.
        decode: maps token ids to their text.
        find_padding: computes `padding_share` when it is first used.
        images: digests of all images, row by row; empty if they are unknown.
        sample_ids: of the prompts' samples.
        keys: of the prompts' requests, row by row; empty if they are unknown.
        appended: number of text tokens that were appended to the prompts.
    """

    ids: torch.Tensor
    spans: Spans
    attended: torch.Tensor
    questions: tuple[str, ...]
    decode: Callable[[list[int]], str]
    find_padding: Callable[[Spans], torch.Tensor]
    images: tuple[str, ...] = ()
    sample_ids: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    appended: int = 0

    @property
    def length(self) -> int:
        """Tokens of the padded sequence, T."""
        return self.spans.length

    @property
    def visual(self) -> torch.Tensor:
        """Bool[batch, T]: the tokens that the model replaces by image features; no row breaks, tile marks or delimiters."""
        return self.spans.owner >= 0

    @cached_property
    def padding_share(self) -> torch.Tensor:
        """Float[batch, T]: share of padding in the pixels that each visual token covers.

        Raises:
            UnsupportedModelError: the padding is unknown.
        """
        return self.find_padding(self.spans)

    @cached_property
    def instruction_end(self) -> torch.Tensor:
        """Int[batch]: index of the question's last token, after which the chat template continues to the answer.

        Raises:
            UnsupportedModelError: a prompt does not contain its question unchanged.
        """
        stop = self.ids.shape[1] - self.appended
        return torch.tensor(
            [_ending(self.decode, row[:stop].tolist(), text) for row, text in zip(self.ids, self.questions, strict=True)]
        )

    def extended(self, tokens: Sequence[int]) -> PromptLayout:
        """The layout of the same prompts with text tokens appended."""
        more = torch.tensor([list(tokens)], dtype=self.ids.dtype).expand(len(self.ids), -1)
        return replace(
            self,
            ids=torch.cat([self.ids, more], dim=1),
            spans=self.spans.extended(len(tokens)),
            attended=torch.cat([self.attended, torch.ones_like(more, dtype=torch.bool)], dim=1),
            appended=self.appended + len(tokens),
        )

    def without_appended(self) -> PromptLayout:
        """The layout of the prompts themselves."""
        stop = self.length - self.appended
        spans = replace(self.spans, owner=self.spans.owner[:, :stop])
        return replace(self, ids=self.ids[:, :stop], spans=spans, attended=self.attended[:, :stop], appended=0)


def no_padding(spans: Spans) -> torch.Tensor:
    """`find_padding` for images without padding: Float[batch, T], all 0."""
    return torch.zeros(spans.owner.shape)


def padding_unknown(spans: Spans) -> torch.Tensor:
    """`find_padding` for images whose preparation is unknown.

    Raises:
        UnsupportedModelError: always.
    """
    raise UnsupportedModelError(
        "It is unknown which visual tokens show padding of a picture; use --image-preparation protocol, which has none."
    )


def _ending(decode: Callable[[list[int]], str], row: list[int], text: str) -> int:
    """Index of the token at which the decoded row ends like the text: of the last match, its first token."""
    wanted = "".join(text.split())[-_ENDING:]
    last = None
    for end in range(len(row), 0, -1):
        shown = decode(row[max(0, end - _WINDOW) : end])
        if "".join(shown.split()).endswith(wanted):
            last = end - 1
        elif last is not None:
            return last
    if last is None or not wanted:
        raise UnsupportedModelError(
            f"The prompt does not show its question ({text[-40:]!r} at its end), so the end of the instruction is unknown."
        )
    return last
