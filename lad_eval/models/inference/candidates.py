"""Joint log-probabilities of the candidates from a model's raw next-token logits.

The candidates' token sequences form a trie. At every node the model chooses among the node's valid next tokens only: its
children and, where one candidate ends and others continue, the end of the sequence. The probabilities of all candidates then
sum to one, whatever their lengths (arXiv 2605.11591, Eq. 15-16).

This module does not import torch; running the model and reading its logits is in `lad_eval.models.inference.continuation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, logsumexp

from lad_eval.errors import UserError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Branch:
    """A node of the trie with more than one valid next token.

    Attributes:
        prefix: tokens from the root to the node; empty at the root.
        tokens: the node's children, as token ids.
        ends: whether a candidate ends here, so that the end of the sequence is valid too.
    """

    prefix: tuple[int, ...]
    tokens: tuple[int, ...]
    ends: bool

    def columns(self, end_ids: Sequence[int]) -> list[int]:
        """Token ids whose logits are compared here: the children, then (where a candidate ends) every end-of-sequence id."""
        return [*self.tokens, *(e for e in end_ids if e not in self.tokens)] if self.ends else list(self.tokens)


@dataclass(frozen=True)
class CandidateTrie:
    """The candidates' token sequences, as the model would continue the prompt.

    Raises:
        UserError: two candidates have the same tokens.
    """

    candidates: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        seen: dict[tuple[int, ...], int] = {}
        for k, tokens in enumerate(self.candidates):
            if tokens in seen:
                raise UserError(
                    f"The model's tokenizer gives candidates {seen[tokens] + 1} and {k + 1} the same tokens {list(tokens)}; "
                    "choose other identifiers."
                )
            seen[tokens] = k

    @cached_property
    def branches(self) -> tuple[Branch, ...]:
        """Nodes with more than one valid next token, shortest prefix first; one without a choice adds nothing."""
        children: dict[tuple[int, ...], list[int]] = {}
        for tokens in self.candidates:
            for depth, token in enumerate(tokens):
                below = children.setdefault(tokens[:depth], [])
                if token not in below:
                    below.append(token)
        ends = set(self.candidates)
        nodes = (Branch(prefix, tuple(below), prefix in ends) for prefix, below in children.items())
        return tuple(sorted((n for n in nodes if len(n.tokens) + n.ends > 1), key=lambda n: len(n.prefix)))

    @property
    def prefixes(self) -> tuple[tuple[int, ...], ...]:
        """Prefixes that must be run through the model in addition to the prompt."""
        return tuple(b.prefix for b in self.branches if b.prefix)

    @property
    def needs_end(self) -> bool:
        return any(b.ends for b in self.branches)

    def log_probs(self, logits: Sequence[npt.ArrayLike], end_ids: Sequence[int] = ()) -> Floats:
        """Joint log-probabilities Float[n, N] of the candidates.

        Args:
            logits: for every branch Float[n, C], the raw logits of the token ids `branch.columns(end_ids)`.
            end_ids: every id that ends a sequence; their probabilities add up to one choice.

        Each row's probabilities sum to one.
        """
        n = np.asarray(logits[0]).shape[0] if logits else 0
        total = np.zeros((n, len(self.candidates)))
        for branch, raw in zip(self.branches, logits, strict=True):
            values = np.asarray(raw, dtype=np.float64)
            k = len(branch.tokens)
            if branch.ends:
                if values.shape[1] == k:
                    raise ValueError("a candidate ends where others continue, but no end-of-sequence id was given")
                values = np.concatenate([values[:, :k], logsumexp(values[:, k:], axis=1, keepdims=True)], axis=1)
            choice = log_softmax(values, axis=1)
            depth = len(branch.prefix)
            for c, tokens in enumerate(self.candidates):
                if tokens[:depth] == branch.prefix:
                    total[:, c] += choice[:, branch.tokens.index(tokens[depth]) if len(tokens) > depth else k]
        return total


def common_prefix(sequences: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Longest common beginning."""
    shared: list[int] = []
    for column in zip(*sequences, strict=False):
        if any(token != column[0] for token in column):
            break
        shared.append(column[0])
    return tuple(shared)
