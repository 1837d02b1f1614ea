"""The figures, each a function of arrays; all in points (0 to 100) unless said otherwise.

Source: "Logit-Attention Divergence" (arXiv 2605.11591), section 5.2; RStd also arXiv 2309.03882. S samples, T permutations, N
candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lad_eval.evidence import Floats, Ints
from lad_eval.metrics.predictions import UNPARSABLE, Bools


class ChiSquare(NamedTuple):
    """The statistic (N - 1 degrees of freedom) and the probability of one at least as great."""

    statistic: float
    p_value: float


def accuracy(correct: Bools) -> float:
    """Mean over all samples and permutations of Bool[S, T]."""
    return 100 * float(correct.mean())


def accuracy_std(correct: Bools) -> float:
    """Standard deviation over the T permutations of their accuracies, from Bool[S, T]; 0 for T = 1.

    Divides by T - 1, as the released code of LAD does (`src/metric.py`). It says how much the displayed order matters, not how
    sure the accuracy is; for that see the bootstrap interval.
    """
    return 100 * float(correct.mean(axis=0).std(ddof=1)) if correct.shape[1] > 1 else 0.0


def recall(gold: Ints, predicted: Ints, n_candidates: int) -> Floats:
    """Share of the rows with the answer at each position that were answered right, Float[N].

    Args:
        gold: Int[...], positions.
        predicted: Int[...], positions or -1.
        n_candidates: N. A position that never held the answer has NaN.
    """
    hits = np.bincount(gold[gold == predicted], minlength=n_candidates)
    total = np.bincount(gold.ravel(), minlength=n_candidates)
    return 100 * share(hits, total)


def confusion(gold: Ints, predicted: Ints, n_candidates: int) -> Ints:
    """Counts Int[N, N + 1]: row = the right image's position, column = the answered one; the last column counts no answer."""
    column = np.where(predicted == UNPARSABLE, n_candidates, predicted).ravel()
    counts = np.zeros((n_candidates, n_candidates + 1), dtype=np.int64)
    np.add.at(counts, (gold.ravel(), column), 1)
    return counts


def row_shares(counts: Ints) -> Floats:
    """Rows in percent of their sums; NaN in rows without a count."""
    total = counts.sum(axis=1, keepdims=True)
    shares: Floats = np.divide(100.0 * counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return shares


def rstd(gold: Ints, predicted: Ints, n_candidates: int) -> float:
    """Standard deviation (N - 1 in the denominator) of the recall over the N positions; arguments as for `recall`.

    Positions that never held the answer are left out; NaN if fewer than two held it.
    """
    return float(spread(recall(gold, predicted, n_candidates)))


def consistent(chosen: Ints) -> Bools:
    """Whether the same image was chosen under all permutations, Bool[S], from Int[S, T] (image or -1, never consistent)."""
    same: Bools = (chosen == chosen[:, :1]).all(axis=1) & (chosen[:, 0] != UNPARSABLE)
    return same


def consistency(chosen: Ints) -> float:
    """Share of samples for which the same image was chosen under all permutations, from Int[S, T]."""
    return 100 * float(consistent(chosen).mean())


def all_correct(correct: Bools) -> float:
    """Share of samples that are answered right under all permutations, from Bool[S, T]."""
    return 100 * float(correct.all(axis=1).mean())


def unparsable(predicted: Ints) -> int:
    """Number of rows without an answer."""
    return int((predicted == UNPARSABLE).sum())


def chi_square(predicted: Ints, n_candidates: int) -> ChiSquare:
    """Pearson's test that all N positions are answered equally often, from Int[...]; unparsable rows are left out.

    It presupposes that the answer stands at every position equally often, and takes rows as independent, which the T rows of one
    sample are not: read the p-value as an indication. (NaN, NaN) if no row has an answer.
    """
    from scipy.special import chdtrc

    counts = np.bincount(predicted[predicted != UNPARSABLE], minlength=n_candidates)
    if not (answered := counts.sum()):
        return ChiSquare(np.nan, np.nan)
    expected = answered / n_candidates
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return ChiSquare(statistic, float(chdtrc(n_candidates - 1, statistic)))


def divergence(purified_accuracy: float, vanilla_accuracy: float) -> float:
    """Logit-attention divergence: what purified attention knows and the logits do not say, in points."""
    return purified_accuracy - vanilla_accuracy


def share(part: npt.NDArray[np.number], whole: npt.NDArray[np.number]) -> Floats:
    """Elementwise part / whole; NaN where whole is 0."""
    result: Floats = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return result


def spread(values: Floats) -> Floats:
    """Standard deviation (ddof = 1) along the last axis of the values that are not NaN; NaN for fewer than two of them."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    filled = np.where(known, values, 0.0)
    mean = filled.sum(axis=-1) / np.maximum(count, 1)
    squares = np.where(known, (filled - mean[..., None]) ** 2, 0.0).sum(axis=-1)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)
