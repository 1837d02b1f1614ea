"""The attention to each image: the choice of layers, their mean, and the removal of the prior of positions.

Source: "Logit-Attention Divergence" (arXiv 2605.11591), Eq. 6-12, and its released code (github.com/brightXian/LAD, c704b9d).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np

from lad_eval.errors import EvidenceError
from lad_eval.evidence.table import Evidence, Floats, Ints, Span
from lad_eval.methods.base import MethodWarning
from lad_eval.methods.calibration import log_softmax
from lad_eval.methods.evidence_method import EvidenceMethod
from lad_eval.parameters import Count, LayerRange, Layers, Positive

AttentionMean = Literal["arithmetic", "log"]

ATTENTION_FLOOR = 1e-20
"""Attention below this is raised to it before the log, as in the released code: no attention is a very low score, not NaN."""

TopK = Annotated[int, Count()] | Literal["all"]
Temperature = Annotated[float, Positive()]
LayerChoice = Annotated[LayerRange, Layers()]


class FewLayersWarning(MethodWarning):
    """The range holds fewer layers than top_k; all of them are used."""


def layer_range(layers: LayerRange, depth: int) -> tuple[int, int]:
    """First and last layer, counted from 0, inclusive, of a decoder of `depth` layers.

    "upper" is what the released code reads, layers 21 to 35, cut to the depth; in a decoder of fewer than 24 layers it begins at
    ceil(7 depth / 12), the same share of the depth as 21 of 36, and includes at least the last layer.

    Raises:
        EvidenceError: a range given by number reaches past the last layer.
    """
    if layers == "all":
        return 0, depth - 1
    if layers == "upper":
        return (21, min(35, depth - 1)) if depth >= 24 else (min(math.ceil(7 * depth / 12), depth - 1), depth - 1)
    first, last = layers
    if last >= depth:
        raise EvidenceError(f"layers {first}-{last} reach past the last layer: this evidence has layers 0-{depth - 1}.")
    return int(first), int(last)


def strongest_layers(attention: Floats, layers: LayerRange, top_k: int | Literal["all"], *, method: str = "") -> Ints:
    """L*, Int[n, K]: for every row the K layers of the range with the greatest total attention to images (Eq. 8-9).

    Args:
        attention: Float[n, L, N].
        layers: the range to choose from.
        top_k: K; cut, with a FewLayersWarning, to the number of layers in the range; "all": as many as that. Among equal layers
            the deeper is taken.
        method: name of the method that reads them, for the warning.
    """
    first, last = layer_range(layers, attention.shape[1])
    size = last - first + 1
    top_k = size if top_k == "all" else top_k
    if top_k > size:
        warnings.warn(
            f"{method}{': ' if method else ''}top_k = {top_k}, but its range holds only {size} layer{'s' if size > 1 else ''} "
            f"({first}-{last}), all of which it uses; choose a smaller top_k, or layers = all.",
            FewLayersWarning,
            stacklevel=2,
        )
    strength = attention[:, first : last + 1].sum(axis=2)
    from_deepest = np.argsort(-strength[:, ::-1], axis=1, kind="stable")[:, :top_k]
    chosen: Ints = last - from_deepest
    return chosen


def raw_attention(attention: Floats, chosen: Ints) -> Floats:
    """Mean over the chosen layers of the attention to each image, Float[n, N], from Float[n, L, N] and Int[n, K]."""
    mean: Floats = np.take_along_axis(attention, chosen[:, :, None], axis=1).mean(axis=1)
    return mean


def log_attention(attention: Floats) -> Floats:
    return np.log(np.maximum(attention, ATTENTION_FLOOR))


def log_prior(attention: Floats) -> Floats:
    """Log of a_prior, Float[L, N]: of the mean attention over all calibration passes Float[n, L, N] (Eq. 7)."""
    return log_attention(attention.mean(axis=0))


def purified_attention(attention: Floats, prior: Floats, chosen: Ints, mean: AttentionMean, temperature: float) -> Floats:
    """Log of pi, Float[n, N], the posterior over images by attention with the prior of positions divided out.

    pi = softmax(temperature * log pt) (Eq. 12), with log pt over the chosen layers L*:
    "log" (Eq. 11): mean of [log a - log a_prior];
    "arithmetic" (released code): log(mean of a) - mean of log a_prior.

    Args:
        attention: Float[n, L, N].
        prior: Float[L, N], from `log_prior`.
        chosen: Int[n, K].
        mean: how the attention of the chosen layers is averaged.
        temperature: tau, a multiplier: greater is sharper.
    """
    if mean == "arithmetic":
        log_mean = log_attention(raw_attention(attention, chosen))
    else:
        log_mean = log_attention(np.take_along_axis(attention, chosen[:, :, None], axis=1)).mean(axis=1)
    return log_softmax(temperature * (log_mean - prior[chosen].mean(axis=1)))


class RawAttention(EvidenceMethod):
    """The image with the most attention, in the layers with the most attention to images.

    Source: arXiv 2605.11591, ablation "raw attention": argmax_k of the mean over L* of a_k. Its probabilities are the images'
    shares of that mean.

    Args:
        top_k: number of layers in L*, or "all" of the range.
        layers: the layers L* is chosen from, see `LayerRange`.
        span: "delimited" includes an image's delimiters, as the released code does; "image" does not (Eq. 6).
    """

    name = "raw-attention"
    needs = frozenset({"attention"})

    def __init__(self, *, top_k: TopK = 2, layers: LayerChoice = "upper", span: Span = "delimited") -> None:
        self.top_k = top_k
        self.layers = layers
        self.span = span

    def _scores(self, evidence: Evidence) -> Floats:
        attention = self._attention(evidence)
        return log_attention(raw_attention(attention, strongest_layers(attention, self.layers, self.top_k, method=self.name)))


class PurifiedAttention(EvidenceMethod):
    """The image with the most attention relative to the average attention to its position.

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
    learned_shapes: ClassVar[Mapping[str, str]] = {"log_attention_prior_": "LN"}

    log_attention_prior_: Floats

    def __init__(
        self,
        *,
        top_k: TopK = 2,
        temperature: Temperature = 5.0,
        layers: LayerChoice = "upper",
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
        chosen = strongest_layers(attention, self.layers, self.top_k, method=self.name)
        return purified_attention(attention, self.log_attention_prior_, chosen, self.attention_mean, self.temperature)
