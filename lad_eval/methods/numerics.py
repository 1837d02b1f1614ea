"""Log-domain arithmetic shared by the methods; numpy only, so that listing the methods stays quick."""

from __future__ import annotations

import numpy as np

from lad_eval.evidence import Floats


def logsumexp(values: Floats, axis: int) -> Floats:
    """Log of the sum of exponentials along an axis, without overflow; `values` must be finite."""
    top = values.max(axis=axis, keepdims=True)
    total: Floats = np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis)
    return total


def log_softmax(scores: Floats) -> Floats:
    """Scores Float[..., N] as normalised log-probabilities along the last axis."""
    return scores - logsumexp(scores, axis=-1)[..., None]
