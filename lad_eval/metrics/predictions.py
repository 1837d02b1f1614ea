"""Predictions: what a method answered to T displayed orders of every sample, as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lad_eval.errors import UserError
from lad_eval.evidence.replies import UNPARSABLE
from lad_eval.evidence.table import Ints, Rows

Bools = npt.NDArray[np.bool_]


class PredictionsError(UserError):
    """A table of predictions that is incomplete or contradicts itself."""


class Grid(NamedTuple):
    """The same predictions as S samples by T permutations, both sorted.

    Attributes:
        sample_id: Str[S].
        permutation: Int[T].
        gold: Int[S, T], positions.
        predicted: Int[S, T], positions or UNPARSABLE.
        chosen: Int[S, T], images (indices before the permutation) or UNPARSABLE.
        n_candidates: N.
        perm: Int[S, T, N], position `j` shows image `perm[s, t, j]`.
    """

    sample_id: npt.NDArray[np.str_]
    permutation: Ints
    gold: Ints
    predicted: Ints
    chosen: Ints
    n_candidates: int
    perm: Ints

    @property
    def correct(self) -> Bools:
        """Bool[S, T]; an unparsable reply is wrong."""
        right: Bools = self.predicted == self.gold
        return right

    @property
    def gold_image(self) -> Ints:
        """Int[S], the right image; the same under all orders."""
        images: Ints = np.take_along_axis(self.perm[:, 0], self.gold[:, :1], axis=1)[:, 0]
        return images

    def only(self, samples: Iterable[str]) -> Grid:
        """The rows of these samples, in their order, as far as there are any."""
        where = {sample: row for row, sample in enumerate(self.sample_id.tolist())}
        rows = np.asarray([where[sample] for sample in samples if sample in where], dtype=np.int64)
        names = ("sample_id", "gold", "predicted", "chosen", "perm")
        return self._replace(**{name: getattr(self, name)[rows] for name in names})

    @property
    def hits(self) -> Ints:
        """Int[S, N], how many rows of a sample with the right image at each position were answered right."""
        return self._at(self.correct)

    @property
    def rows(self) -> Ints:
        """Int[N], how many rows have the right image at each position."""
        counted: Ints = self._at(np.ones_like(self.correct)).sum(axis=0)
        return counted

    def _at(self, counted: Bools) -> Ints:
        at = self.gold[:, :, None] == np.arange(self.n_candidates)
        count: Ints = (at & counted[:, :, None]).sum(axis=1)
        return count


@dataclass(frozen=True)
class Predictions:
    """n rows, one per sample and permutation; every sample has the same T permutations.

    Attributes:
        sample_id: Str[n].
        permutation: Int[n], index of the displayed order, shared by all samples.
        gold_position: Int[n], 0-based.
        predicted: Int[n], 0-based position, or UNPARSABLE (-1).
        perm: Int[n, N], position `j` shows image `perm[i, j]`.

    Raises:
        PredictionsError: shapes or values do not fit, a sample lacks a permutation or has one twice, or a sample's answer is not
            the same image in all its rows.
    """

    sample_id: npt.NDArray[np.str_]
    permutation: Ints
    gold_position: Ints
    predicted: Ints
    perm: Ints

    def __post_init__(self) -> None:
        object.__setattr__(self, "sample_id", np.asarray(self.sample_id, dtype=np.str_))
        for name in ("permutation", "gold_position", "predicted", "perm"):
            object.__setattr__(self, name, _whole(getattr(self, name), name))
        n = len(self.sample_id)
        if not n:
            raise PredictionsError("There are no predictions to measure.")
        if self.perm.ndim != 2 or self.perm.shape[0] != n or self.perm.shape[1] < 2:
            raise PredictionsError(f"perm must have shape [{n}, N] with N >= 2, not {list(self.perm.shape)}.")
        for name in ("permutation", "gold_position", "predicted"):
            if (shape := getattr(self, name).shape) != (n,):
                raise PredictionsError(f"{name} must have shape [{n}] as sample_id has {n} rows, not {list(shape)}.")
        if not np.array_equal(np.sort(self.perm, axis=1), np.tile(np.arange(N := self.perm.shape[1]), (n, 1))):
            raise PredictionsError("every row of perm must be a permutation of 0..N-1.")
        for name, least in (("gold_position", 0), ("predicted", UNPARSABLE)):
            if not ((getattr(self, name) >= least) & (getattr(self, name) < N)).all():
                raise PredictionsError(f"{name} must lie in {least}..{N - 1}.")
        _ = self.grid

    @classmethod
    def of(cls, rows: Rows, predicted: npt.ArrayLike, permutation: Sequence[int] | Ints | None = None) -> Predictions:
        """Answers Int[n] to rows of evidence or of replies.

        Args:
            rows: of the questions.
            predicted: positions, or UNPARSABLE.
            permutation: Int[n]; None: the displayed orders that occur are numbered in lexicographic order.
        """
        if permutation is None:
            permutation = np.unique(rows.perm, axis=0, return_inverse=True)[1].reshape(len(rows.perm))
        return cls(rows.sample_id, np.asarray(permutation), rows.gold_position, np.asarray(predicted), rows.perm)

    def only(self, samples: Iterable[str]) -> Predictions:
        """The rows of these samples."""
        chosen = np.isin(self.sample_id, list(samples))
        names = [field.name for field in fields(self)]
        return Predictions(**{name: getattr(self, name)[chosen] for name in names})

    @cached_property
    def cells(self) -> Ints:
        """Int[S, T], which row holds the answer to each sample under each permutation, both sorted."""
        samples, sample = np.unique(self.sample_id, return_inverse=True)
        permutations, permutation = np.unique(self.permutation, return_inverse=True)
        S, T = len(samples), len(permutations)
        times = np.bincount(sample * T + permutation, minlength=S * T).reshape(S, T)
        if (incomplete := (times != 1).any(axis=1)).any():
            raise PredictionsError(
                f"Every sample must be answered once under each of the {T} permutations: {int(incomplete.sum())} of {S} samples "
                f"are not, such as {samples[int(incomplete.argmax())].item()!r}; finish the run first."
            )
        rows: Ints = np.lexsort((permutation, sample)).reshape(S, T)
        return rows

    @cached_property
    def grid(self) -> Grid:
        rows = self.cells
        samples, permutations = self.sample_id[rows[:, 0]], self.permutation[rows[0]]
        every = np.arange(len(self.sample_id))
        gold_image = self.perm[every, self.gold_position][rows]
        if (wandering := (gold_image != gold_image[:, :1]).any(axis=1)).any():
            raise PredictionsError(
                f"The right image of {samples[int(wandering.argmax())].item()!r} differs between its permutations: "
                "perm or gold_position is wrong."
            )
        chosen = np.where(self.predicted == UNPARSABLE, UNPARSABLE, self.perm[every, self.predicted])
        N = int(self.perm.shape[1])
        return Grid(samples, permutations, self.gold_position[rows], self.predicted[rows], chosen[rows], N, self.perm[rows])


def _whole(values: Sequence[int] | npt.NDArray[Any], name: str) -> Ints:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise PredictionsError(f"{name} must hold whole numbers, not {array.dtype}.")
    return array.astype(np.int64)
