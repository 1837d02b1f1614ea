"""In-context re-ranking as released: calibrated image tokens, without those of unusually low score."""

from __future__ import annotations

import numpy as np

from lad_eval.errors import EvidenceError
from lad_eval.evidence.table import Evidence, Floats
from lad_eval.methods.evidence_method import EvidenceMethod
from lad_eval.tasks.probes import Probe

_QUERY = Probe(token_map=True)
_NO_QUERY = Probe(caption="na", token_map=True)
_DEVIATIONS = 2.0


class MaskedICR(EvidenceMethod):
    """ICR from the caption's tokens: the image whose tokens gain most attention over "N/A", without its lowest tokens.

    Source: in-context re-ranking (arXiv 2410.02642), the default of its released code (`masked_NA_calibration`,
    github.com/OSU-NLP-Group/In-Context-Reranking, 9117e9f): score_k = sum over the tokens t of image k of [a_t(caption) -
    a_t("N/A")], without those that are at most the image's mean minus 2 standard deviations (ddof 1). a_t is the attention of the
    caption's tokens (their mean) to token t, summed over layers and heads; here the heads' mean, which changes no answer.

    Both maps are probes: a question takes its own pass and one for each map.
    """

    name = "icr-masked"
    needs = frozenset({"attention", "token_map"})

    def __init__(self) -> None:
        """It has no parameters."""

    @property
    def probes(self) -> tuple[Probe, ...]:
        return _QUERY, _NO_QUERY

    def _scores(self, evidence: Evidence) -> Floats:
        with_query, without = (evidence.probes[probe.label] for probe in self.probes)
        if (
            with_query.token_map is None
            or without.token_map is None
            or with_query.token_grid is None
            or without.token_grid is None
        ):
            raise EvidenceError(f"{self.name} needs token maps and its probes' evidence has none: collect it again.")
        if not np.array_equal(with_query.token_grid, without.token_grid):
            raise EvidenceError(f"{self.name} needs the same images in both of its probes, which differ in their tokens.")
        scores = np.empty(evidence.log_probs.shape)
        for row, (here, there) in enumerate(zip(with_query.token_map, without.token_map, strict=True)):
            ends = np.cumsum(with_query.token_grid[row, :, 0])[:-1]
            scores[row] = [masked_sum(tokens) for tokens in np.split(here - there, ends)]
        return scores


def masked_sum(calibrated: Floats) -> float:
    """The sum of an image's calibrated tokens, Float[tokens], without those at most their mean minus 2 standard deviations.

    A single token, and tokens that are all equal, have no unusual ones: all count.
    """
    if len(calibrated) < 2 or not (deviation := float(calibrated.std(ddof=1))):
        return float(calibrated.sum())
    return float(calibrated[calibrated > calibrated.mean() - _DEVIATIONS * deviation].sum())
