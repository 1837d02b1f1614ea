"""The arrays behind the charts: attention by layer, and what calibration learned."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lad_eval.errors import UserError
from lad_eval.evidence.table import Evidence, Floats
from lad_eval.methods import Method, MethodWarning, make_method
from lad_eval.methods.readout import layer_range
from lad_eval.metrics import recall_intervals
from lad_eval.report.html.load import MethodAnswers
from lad_eval.report.html.positions import Recall
from lad_eval.report.html.text import clean, position_names
from lad_eval.report.table import Content, Table, figure


def gold_attention(evidence: Evidence) -> Floats:
    """Float[N, L]: the right image's share of the attention to all images, mean over the rows with the right image at i.

    Uses the images' own tokens (arXiv 2605.11591, Eq. 6). NaN for a position that never has the right image; rows without
    attention to any image in a layer are left out there.
    """
    attention = evidence.attention
    if attention is None:
        raise ValueError("no attention")
    N = evidence.n_candidates
    total = attention.sum(axis=2)
    at_gold = np.take_along_axis(attention, evidence.gold_position[:, None, None], axis=2)[..., 0]
    share = np.divide(at_gold, total, out=np.full(total.shape, np.nan), where=total > 0)
    means = np.full((N, attention.shape[1]), np.nan)
    for i in range(N):
        rows = share[evidence.gold_position == i]
        known = ~np.isnan(rows)
        counts = known.sum(axis=0)
        np.divide(np.where(known, rows, 0.0).sum(axis=0), counts, out=means[i], where=counts > 0)
    return means


@dataclass(frozen=True)
class Learned:
    """What one method learned in calibration; None for anything it does not learn.

    Attributes:
        bias: P_bias(j|i) as Float[N, N], row i for the right image's position; `gain`: g.
        prior: Float[N], prior over positions.
        attention_prior: Float[L, N], mean attention to each position.
        layers: first and last layer, 0-based, whose attention the method reads.
    """

    bias: Floats | None
    gain: float | None
    prior: Floats | None
    attention_prior: Floats | None
    layers: tuple[int, int] | None


def learn(method: Method, calibration: Evidence) -> Learned:
    """Calibrates a method on stored evidence and returns what it learned; for a method over several orders, what its decision "
    "learned.

    Raises:
        EvidenceError: it cannot be calibrated on this evidence.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MethodWarning)
        method.calibrate(calibration)
    inner = method.learner
    arrays = {
        part: _exp(getattr(inner, attribute, None))
        for part, attribute in (("bias", "log_bias_"), ("prior", "log_prior_"), ("attention_prior", "log_attention_prior_"))
    }
    N = calibration.n_candidates
    shapes = {"bias": 2, "prior": 1, "attention_prior": 2}
    fitting = {part: a if a is not None and a.ndim == shapes[part] and a.shape[-1] == N else None for part, a in arrays.items()}
    gain = getattr(inner, "log_gain_", None)
    return Learned(
        gain=float(np.exp(gain)) if gain is not None and np.ndim(gain) == 0 else None,
        layers=layers_read(inner, calibration.n_layers),
        **fitting,
    )


def made(name: str, parameters: Mapping[str, Any]) -> Method:
    """The method with these parameters, as stored in `metrics.json` (where tuples are lists).

    Raises:
        UserError: there is no such method, or it no longer has such parameters.
    """
    return make_method(name, **{key: tuple(value) if isinstance(value, list) else value for key, value in parameters.items()})


def layers_chosen(method: Method, evidence: Evidence) -> Floats | None:
    """Float[L]: share of the rows in which a method reads each layer (arXiv 2605.11591, Eq. 8-9); None if it chooses no "
    "layers.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MethodWarning)
        return method.layer_shares(evidence)


def layers_read(method: Method, depth: int) -> tuple[int, int] | None:
    """First and last layer that a method chooses from; None if it reads no attention."""
    layers = getattr(method, "layers", None)
    if layers is None or not depth:
        return None
    try:
        return layer_range(layers, depth)
    except UserError:
        return None


def _exp(array: object) -> Floats | None:
    return None if array is None else np.exp(np.asarray(array, dtype=np.float64))


def recalls_of(
    metrics: Mapping[str, Any], answers: MethodAnswers | None, colours: Mapping[str, str] | None = None
) -> dict[str, Recall]:
    """Recall by method, without methods that have none.

    A mean over repetitions has no interval, since only the answers of the first repetition are stored.

    Args:
        metrics: `metrics.json`.
        answers: for the intervals; None: there are none.
        colours: CSS class by method.
    """
    recalls = {}
    for name, measured in metrics["methods"].items():
        values = measured.get("recall")
        if not values:
            continue
        low = high = np.full(len(values), np.nan)
        if answers is not None and name in answers.grids and not measured.get("draws"):
            low, high = recall_intervals(answers.shown.gold, answers.grids[name].predicted, answers.n_candidates)
        recalls[name] = Recall(clean(name), values, _known(low), _known(high), (colours or {}).get(name, ""))
    return recalls


def recall_table(recalls: Sequence[Recall]) -> Table:
    """The numbers of a chart of recalls: one row per method, one column per position."""
    names = position_names(len(recalls[0].values))
    rows: list[list[Content]] = [[one.name, *map(figure, one.values, one.low, one.high)] for one in recalls]
    return Table("", ["Method", *names], rows)


def _known(bounds: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in bounds]
