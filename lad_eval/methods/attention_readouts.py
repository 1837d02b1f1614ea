"""What the attention alone would answer, with and without the prior of positions."""

from __future__ import annotations

from typing import ClassVar

from lad_eval.evidence import Evidence, Floats, Span
from lad_eval.methods.base import Method
from lad_eval.methods.parameters import LayerRange, Positive
from lad_eval.methods.readout import (
    ATTENTION_MEAN,
    LAYER_PARAMETERS,
    SPAN,
    AttentionMean,
    log_attention,
    log_prior,
    purified_attention,
    raw_attention,
    strongest_layers,
)


class RawAttention(Method):
    """The image that the model looks at most, in the layers that look at the images most.

    Source: arXiv 2605.11591, ablation "raw attention": argmax_k of the mean over L* of a_k. Its probabilities are the images'
    shares of that mean.

    Args:
        top_k: number of layers in L*.
        layers: the layers L* is chosen from, see `LayerRange`.
        span: "delimited" counts an image's delimiters into its tokens, as the released code does; "image" does not (Eq. 6).
    """

    name = "raw-attention"
    needs = frozenset({"attention"})
    parameters: ClassVar = {**LAYER_PARAMETERS, "span": SPAN}

    def __init__(self, *, top_k: int = 2, layers: LayerRange = "upper", span: Span = "delimited") -> None:
        self.top_k = top_k
        self.layers = layers
        self.span = span

    def _scores(self, evidence: Evidence) -> Floats:
        attention = self._attention(evidence)
        return log_attention(raw_attention(attention, strongest_layers(attention, self.layers, self.top_k)))


class PurifiedAttention(Method):
    """The image that the model looks at more than it looks at its position on average.

    Source: arXiv 2605.11591, Eq. 7-12: argmax_k of pi, LAD's posterior over images; no log-probabilities are read.

    Args:
        top_k: number of layers in L*.
        temperature: tau, sharpens the posterior; it moves the probabilities, not the answer.
        layers: the layers L* is chosen from, see `LayerRange`.
        attention_mean: "arithmetic" (released code) or "log" (Eq. 11), see `purified_attention`.
        span: "delimited" (released code) or "image" (Eq. 6).

    Attributes:
        log_attention_prior_: Float[L, N].
    """

    name = "purified-attention"
    needs = frozenset({"attention"})
    calibrates = True
    parameters: ClassVar = {
        "top_k": LAYER_PARAMETERS["top_k"],
        "temperature": Positive(),
        "layers": LAYER_PARAMETERS["layers"],
        "attention_mean": ATTENTION_MEAN,
        "span": SPAN,
    }

    log_attention_prior_: Floats

    def __init__(
        self,
        *,
        top_k: int = 2,
        temperature: float = 5.0,
        layers: LayerRange = "upper",
        attention_mean: AttentionMean = "arithmetic",
        span: Span = "delimited",
    ) -> None:
        self.top_k = top_k
        self.temperature = temperature
        self.layers = layers
        self.attention_mean = attention_mean
        self.span = span

    def _calibrate(self, evidence: Evidence) -> None:
        self.log_attention_prior_ = log_prior(self._attention(evidence))

    def _scores(self, evidence: Evidence) -> Floats:
        attention = self._attention(evidence)
        chosen = strongest_layers(attention, self.layers, self.top_k)
        return purified_attention(attention, self.log_attention_prior_, chosen, self.attention_mean, self.temperature)
