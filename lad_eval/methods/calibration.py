"""Calibration passes: a check that the design is complete, and their mean by the answer's position."""

from __future__ import annotations

from typing import Literal

import numpy as np

from lad_eval.errors import EvidenceError
from lad_eval.evidence.table import Evidence, Floats, Ints


def logsumexp(values: Floats, axis: int) -> Floats:
    """Log of the sum of exponentials along an axis, without overflow; `values` must be finite."""
    top = values.max(axis=axis, keepdims=True)
    total: Floats = np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis)
    return total


def log_softmax(scores: Floats) -> Floats:
    """Scores Float[..., N] as normalised log-probabilities along the last axis."""
    return scores - logsumexp(scores, axis=-1)[..., None]


Mean = Literal["log", "probability"]


def check_design(evidence: Evidence) -> None:
    """Checks that every sample is shown under the N cyclic shifts of one order, its answer once at every position.

    Where all rows of a sample have the same `perm` although the answer moved, the orders were not recorded
    (`Evidence.from_arrays` without `perm`) and only the answer's positions are checked.

    Raises:
        EvidenceError: naming a sample, and the positions at which its answer is missing or repeated.
    """
    N = evidence.n_candidates
    samples, sample = np.unique(evidence.sample_id, return_inverse=True)
    seen = np.zeros((len(samples), N), dtype=np.int64)
    np.add.at(seen, (sample, evidence.gold_position), 1)
    if (wrong := (seen != 1).any(axis=1)).any():
        worst = int(wrong.argmax())
        hint = " Calibrate on evidence.calibration alone." if len(np.unique(evidence.split)) > 1 else ""
        raise EvidenceError(
            f"Calibration needs every sample under its {N} cyclic shifts: {int(wrong.sum())} of {len(samples)} samples are not; "
            f"the answer of {samples[worst].item()!r} was {_complaint(seen[worst])}.{hint}"
        )
    rows = np.argsort(sample, kind="stable").reshape(len(samples), N)
    orders = evidence.perm[rows]  # [samples, N rows, N positions]
    recorded = (orders != orders[:, :1]).any(axis=(1, 2))
    starts = orders.argmin(axis=2)
    turned = np.take_along_axis(orders, (starts[..., None] + np.arange(N)) % N, axis=2)
    same_circle = (turned == turned[:, :1]).all(axis=(1, 2))
    all_shifts = (np.sort(starts, axis=1) == np.arange(N)).all(axis=1)
    if (wrong := recorded & ~(same_circle & all_shifts)).any():
        raise EvidenceError(
            f"Calibration needs every sample under its {N} cyclic shifts: the orders of {samples[int(wrong.argmax())].item()!r} "
            "are not the cyclic shifts of one order."
        )


def mean_by_gold(log_probs: Floats, gold_position: Ints, mean: Mean) -> Floats:
    """P_obs(j|i) as logs, Float[N, N], row i for the answer's position: the mean over the passes whose answer is at i.

    Args:
        log_probs: Float[n, N]; every row is normalised first, so that a constant on a row's logits changes nothing.
        gold_position: Int[n]; every position occurs.
        mean: "probability" averages probabilities (arXiv 2605.11591, Eq. 1), "log" averages log-probabilities (its
            released code).
    """
    logs = log_softmax(log_probs)
    groups = [logs[gold_position == i] for i in range(log_probs.shape[1])]
    if mean == "log":
        return np.stack([group.mean(axis=0) for group in groups])
    return np.stack([logsumexp(group, axis=0) - np.log(len(group)) for group in groups])


def _complaint(seen: Ints) -> str:
    missing = ", ".join(map(str, np.flatnonzero(seen == 0)))
    repeated = ", ".join(map(str, np.flatnonzero(seen > 1)))
    return " and ".join(
        ([f"never at position {missing}"] if missing else []) + ([f"more than once at position {repeated}"] if repeated else [])
    )
