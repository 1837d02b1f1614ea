"""The answers of a run as arrays: S samples, T displayed orders, N candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lad_eval.evidence import Floats, Ints
from lad_eval.metrics.predictions import UNPARSABLE, Bools
from lad_eval.run.folder import ResultsError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("method", "sample_id", "permutation", "order", "gold_position", "position", "log_proba")


@dataclass(frozen=True)
class Answers:
    """What every method of a run answered.

    Attributes:
        sample_id: names of the S samples, in the order of asking.
        orders: Int[S, T, N], position j shows image `orders[s, t, j]`.
        gold: Int[S, T], the right image's position.
        position: by method Int[S, T], the answered position, or UNPARSABLE.
        probability: by method Float[S, T, N] of the displayed positions, NaN in rows without one; methods that answer in text
            are missing.
    """

    sample_id: tuple[str, ...]
    orders: Ints
    gold: Ints
    position: dict[str, Ints]
    probability: dict[str, Floats]

    @property
    def methods(self) -> list[str]:
        return list(self.position)

    @property
    def n_candidates(self) -> int:
        return int(self.orders.shape[2])

    @property
    def gold_image(self) -> Ints:
        """Int[S], the right image."""
        images: Ints = np.take_along_axis(self.orders[:, 0], self.gold[:, :1], axis=1)[:, 0]
        return images

    def correct(self, method: str) -> Bools:
        """Bool[S, T]; an unparsable reply is wrong."""
        right: Bools = self.position[method] == self.gold
        return right

    def images(self, method: str) -> Ints:
        """The chosen image, Int[S, T], or UNPARSABLE."""
        position = self.position[method]
        image = np.take_along_axis(self.orders, np.maximum(position, 0)[..., None], axis=2)[..., 0]
        chosen: Ints = np.where(position == UNPARSABLE, UNPARSABLE, image)
        return chosen


def answers_of(predictions: pd.DataFrame, candidates: int) -> Answers:
    """The rows of `predictions.parquet` as arrays; a method whose rows are not those of the first is left out.

    Raises:
        ResultsError: the table lacks a column, or holds no row.
    """
    if missing := [name for name in COLUMNS if name not in predictions.columns]:
        raise ResultsError(f"predictions.parquet lacks {', '.join(missing)}; the command that began the run writes it anew.")
    if predictions.empty:
        raise ResultsError("predictions.parquet holds no row; the command that began the run writes it anew.")
    try:
        return _arrays(predictions, candidates)
    except (ValueError, TypeError, IndexError) as error:
        raise ResultsError("predictions.parquet is damaged; the command that began the run writes it anew.") from error


def _arrays(predictions: pd.DataFrame, candidates: int) -> Answers:
    tables = {str(name): rows for name, rows in predictions.groupby("method", sort=False)}
    first = next(iter(tables.values()))
    ids = list(dict.fromkeys(first["sample_id"]))
    turns = sorted(set(first["permutation"]))
    S, T = len(ids), len(turns)
    if len(first) != S * T:
        raise ResultsError("predictions.parquet lacks an order of a sample; the command that began the run writes it anew.")
    place = {(sample, turn): i for i, (sample, turn) in enumerate((s, t) for s in ids for t in turns)}
    positions: dict[str, Ints] = {}
    probabilities: dict[str, Floats] = {}
    for name, rows in tables.items():
        where = np.asarray(
            [place.get(pair, -1) for pair in zip(rows["sample_id"], rows["permutation"], strict=True)], dtype=np.int64
        )
        if len(where) != S * T or len(np.unique(where)) != S * T or where.min() < 0:
            continue
        at = np.argsort(where)
        positions[name] = rows["position"].to_numpy(dtype=np.int64)[at].reshape(S, T)
        if (known := _probability(rows["log_proba"].tolist(), candidates)) is not None:
            probabilities[name] = known[at].reshape(S, T, candidates)
        if rows is first:
            orders = np.asarray([order.split() for order in rows["order"]], dtype=np.int64)[at].reshape(S, T, candidates)
            gold = rows["gold_position"].to_numpy(dtype=np.int64)[at].reshape(S, T)
    return Answers(tuple(map(str, ids)), orders, gold, positions, probabilities)


def _probability(rows: list[object], candidates: int) -> Floats | None:
    """Float[n, N] from lists of log-probabilities, NaN where a row has none; None if no row has any."""
    found = np.full((len(rows), candidates), np.nan)
    for place, row in enumerate(rows):
        values = np.asarray(row if row is not None else [], dtype=np.float64).ravel()
        if values.shape == (candidates,) and not np.isnan(values).any():
            found[place] = np.exp(values)
    return None if np.isnan(found).all() else found
