"""In-context re-ranking (ICR): attention to the images, less that under a question without content."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from lad_eval.evidence.table import Evidence, Floats, Span
from lad_eval.methods.evidence_method import EvidenceMethod
from lad_eval.methods.readout import LayerChoice, layer_range
from lad_eval.tasks.probes import Probe

_NO_QUERY = Probe(caption="na")


class ICR(EvidenceMethod):
    """The image whose attention, summed over layers, rises most when the caption replaces "N/A".

    Source: in-context re-ranking (arXiv 2410.02642) and its released code (github.com/OSU-NLP-Group/In-Context-Reranking,
    9117e9f): score_k = sum over layers and heads of [a_k(caption) - a_k("N/A")], read at the last token (`NA_calibration_no_agg`
    there; its default averages over the question's tokens, which evidence does not hold).

    Args:
        probe: "own": "N/A" with the question's own images, a pass a question; "calibration": the mean over "N/A" with
            the calibration images, in each order.
        layers: the layers that are summed, see `LayerRange`; four around the best one is selective ICR (arXiv 2602.22591).
        span: an image's tokens without ("image", as released) or with their delimiters ("delimited").

    Attributes:
        attention_prior_: Float[L, N], mean attention under "N/A" of `probe=calibration`.
    """

    name = "icr"
    needs = frozenset({"attention"})
    learned_shapes: ClassVar[Mapping[str, str]] = {"attention_prior_": "LN"}

    attention_prior_: Floats

    def __init__(
        self, *, probe: Literal["own", "calibration"] = "own", layers: LayerChoice = "all", span: Span = "image"
    ) -> None:
        self.probe = probe
        self.layers = layers
        self.span = span

    @property
    def calibrates(self) -> bool:  # type: ignore[override]
        return self.probe == "calibration"

    @property
    def probes(self) -> tuple[Probe, ...]:
        return () if self.calibrates else (_NO_QUERY,)

    @property
    def calibration_probes(self) -> tuple[Probe, ...]:
        return (_NO_QUERY,) if self.calibrates else ()

    def _calibrate(self, evidence: Evidence) -> None:
        self.attention_prior_ = self._attention(evidence.probes[_NO_QUERY.label]).mean(axis=0)

    def _scores(self, evidence: Evidence) -> Floats:
        attention = self._attention(evidence)
        without = self.attention_prior_ if self.calibrates else self._attention(evidence.probes[_NO_QUERY.label])
        first, last = layer_range(self.layers, attention.shape[1])
        scores: Floats = (attention - without)[:, first : last + 1].sum(axis=1)
        return scores
