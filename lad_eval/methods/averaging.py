"""Permutation averaging: ask about every cyclic shift, and let positions cancel."""

from __future__ import annotations

import numpy as np

from lad_eval.errors import EvidenceError
from lad_eval.evidence import Evidence, Floats
from lad_eval.methods.base import Method


class PermutationAverage(Method):
    """Log-probabilities averaged over the N cyclic shifts of the displayed order: N passes, the empirical ceiling.

    Source: arXiv 2605.11591, baseline "permutation averaging". The log-probabilities of every shift are mapped back to images
    and averaged, and each row is answered in its own positions. So the evidence must be closed under cyclic shifts: with a row
    it holds the other N - 1 shifts of that row's order, of the same sample. A request that occurs twice counts as its mean.
    """

    name = "permutation-average"
    views = "cyclic"

    def _scores(self, evidence: Evidence) -> Floats:
        n, N = evidence.log_probs.shape
        start = evidence.perm.argmin(axis=1)  # where image 0 stands: with the circle of images it determines the shift
        turns = (start[:, None] + np.arange(N)) % N
        circle = np.take_along_axis(evidence.perm, turns, axis=1)
        in_circle = np.take_along_axis(evidence.log_probs, turns, axis=1)

        sample = np.unique(evidence.sample_id, return_inverse=True)[1]
        group = np.unique(np.column_stack([sample, circle]), axis=0, return_inverse=True)[1].reshape(n)
        groups = int(group.max()) + 1
        seen = np.zeros((groups, N), dtype=np.int64)
        np.add.at(seen, (group, start), 1)
        if lacking := int((seen == 0).any(axis=1)[group].sum()):
            raise EvidenceError(
                f"{self.name} needs all {N} cyclic shifts of every displayed order: {lacking} of {n} rows lack some; "
                "collect them, or leave the method out."
            )
        weight = 1.0 / (N * seen[group, start])
        mean = np.zeros((groups, N))
        np.add.at(mean, group, in_circle * weight[:, None])
        own_positions = (np.arange(N) - start[:, None]) % N
        return np.take_along_axis(mean[group], own_positions, axis=1)
