"""Divergence examples: the attention stands on the right image, and the logits name another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lad_eval.evidence import Floats, Ints
from lad_eval.pages.answers import Answers

LOGITS = "vanilla"
ATTENTION = ("purified-attention", "raw-attention")


@dataclass(frozen=True)
class Divergences:
    """Where the attention is right and the logits are wrong.

    Attributes:
        attention: the method that speaks for the attention.
        rows: number of such rows; of: of all rows.
        samples: Int[K], the samples with such a row, the surest wrong answer first.
        order: Int[K], the row shown of each: where the logits are surest of their wrong answer.
    """

    attention: str
    rows: int
    of: int
    samples: Ints
    order: Ints


def divergences(answers: Answers) -> Divergences | None:
    """None where the run holds no answers of the logits or of the attention."""
    attention = next((name for name in ATTENTION if name in answers.position), None)
    if attention is None or LOGITS not in answers.position:
        return None
    apart = answers.correct(attention) & ~answers.correct(LOGITS)
    sure = np.where(apart, _confidence(answers), -1.0)
    samples = np.flatnonzero(apart.any(axis=1))
    ranked = samples[np.argsort(-sure[samples].max(axis=1), kind="stable")]
    return Divergences(attention, int(apart.sum()), apart.size, ranked, sure[ranked].argmax(axis=1))


def _confidence(answers: Answers) -> Floats:
    """Probability of the logits' own answer, Float[S, T]; 0 where it has none."""
    known = answers.probability.get(LOGITS)
    if known is None:
        return np.zeros(answers.gold.shape)
    position = np.maximum(answers.position[LOGITS], 0)
    confidence: Floats = np.nan_to_num(np.take_along_axis(known, position[..., None], axis=2)[..., 0])
    return confidence


def flipping(answers: Answers, method: str) -> Ints:
    """The samples for which the method chooses different images under the orders, Int[K]."""
    chosen = answers.images(method)
    found: Ints = np.flatnonzero((chosen != chosen[:, :1]).any(axis=1))
    return found
