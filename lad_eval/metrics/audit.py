"""Figures that audits of position and order bias print, so that theirs can be compared with ours.

S samples, T orders, N candidates; each source is named at its function.
"""

from __future__ import annotations

import numpy as np

from lad_eval.evidence.replies import UNPARSABLE
from lad_eval.evidence.table import Floats, Ints
from lad_eval.metrics.figures import consistent, recall
from lad_eval.metrics.predictions import Bools

_RELEASED_FLOOR = 1e-10


def flips(chosen: Ints, *, released: bool = False) -> Bools:
    """Whether a sample's answer flips, Bool[S], from Int[S, T]; arguments as for `flip_rate`."""
    if not released:
        return ~consistent(chosen)
    several: Bools = (_votes(chosen) > 0).sum(axis=1) > 1
    return several


def flip_rate(chosen: Ints, *, released: bool = False) -> float:
    """Share of samples that are not answered alike under all T orders, in points: 100 - consistency. It grows with T.

    Args:
        chosen: Int[S, T], images or -1; a reply without an answer is a flip.
        released: leave replies without an answer out, as the released code of Facet-Probe does (github.com/yahskapar/facet-probe,
            beb327e, metrics.py); a model that never answers then has no flips.
    """
    return 100 * float(flips(chosen, released=released).mean())


def order_entropy(chosen: Ints, n_candidates: int, *, released: bool = False) -> Floats:
    """Entropy of each sample's choices over the T orders as a share of its maximum, Float[S] in 0..1; the mean is the OSI.

    Source: order-sensitivity index of Facet-Probe (see `flip_rate`). Replies without an answer are left out; 0 for T = 1.

    Args:
        chosen: Int[S, T], images or -1.
        n_candidates: N.
        released: divide by ln max(2, number of different answers of the sample), as the released code does by default, instead
            of ln min(N, T). Then two answers, each half of the time, count as much as N answers, each equally often.
    """
    votes = _votes(chosen)
    shares = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1)
    most = np.maximum((votes > 0).sum(axis=1), 2) if released else max(2, min(n_candidates, chosen.shape[1]))
    result: Floats = np.abs(entropy) / np.log(most)
    return result


def osi(chosen: Ints, n_candidates: int, *, released: bool = False) -> float:
    """Order-sensitivity index, 0 to 1: the mean of `order_entropy`; arguments as there."""
    return float(order_entropy(chosen, n_candidates, released=released).mean())


def ckld(gold: Ints, predicted: Ints, n_candidates: int, *, released: bool = False) -> float:
    """Kullback-Leibler divergence in nats of the positions of the right images from the answered ones: sum_j g_j ln(g_j / q_j).

    Source: Choice Kullback-Leibler Divergence, arXiv 2409.18857. Replies without an answer are left out.

    Args:
        gold: Int[...], positions.
        predicted: Int[...], positions or -1.
        n_candidates: N.
        released: a position that is never answered has q_j = 1e-10, which then determines the figure; otherwise one is added to
            the number of answers at every position.
    """
    right = np.bincount(gold.ravel(), minlength=n_candidates).astype(np.float64)
    counts = np.bincount(predicted[predicted != UNPARSABLE], minlength=n_candidates).astype(np.float64)
    if released:
        answers = np.maximum(counts / max(counts.sum(), 1.0), _RELEASED_FLOOR)
    else:
        answers = (counts + 1) / (counts.sum() + n_candidates)
    held = right > 0
    shares = right[held] / right.sum()
    return float((shares * np.log(shares / answers[held])).sum())


def rsd(gold: Ints, predicted: Ints, n_candidates: int) -> float:
    """Standard deviation of the recall over the N positions, divided by the accuracy; no unit. NaN if nothing is right.

    Source: relative standard deviation, Reif and Schwartz (NAACL 2024). N in the denominator of the variance, where RStd
    has N - 1. Positions that never held the answer are left out. Arguments as for `ckld`.
    """
    shares = recall(gold, predicted, n_candidates)
    accuracy = 100 * float((gold == predicted).mean())
    return float(np.nanstd(shares)) / accuracy if accuracy > 0 else np.nan


def bias_score(log_proba: Floats, gold: Ints) -> float:
    """Total variation, 0 to 1, between the mean probability of each position and equal ones: 1/2 sum_j |P_j - 1/N|.

    Source: BiasScore, Reif and Schwartz (NAACL 2024). P_j is the mean over the positions i of the right image of the mean
    probability of j in rows with the right image at i, so that unequal numbers of these do not count as bias.

    Args:
        log_proba: Float[n, N], of the displayed positions.
        gold: Int[n], positions.
    """
    probabilities, n = np.exp(log_proba), log_proba.shape[1]
    by_gold = np.stack([probabilities[gold == i].mean(axis=0) for i in np.unique(gold)])
    return float(np.abs(by_gold.mean(axis=0) - 1 / n).sum() / 2)


def _votes(chosen: Ints) -> Ints:
    """Int[S, images]: how many orders chose each image."""
    images: Ints = np.arange(max(int(chosen.max(initial=0)) + 1, 1))
    counted: Ints = (chosen[:, :, None] == images).sum(axis=1)
    return counted
