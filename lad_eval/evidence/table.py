"""Evidence: the results of forward passes over (images in some order, question), as a table of arrays.

All methods are arithmetic on this table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from lad_eval.errors import EvidenceError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Span = Literal["delimited", "image"]


class Rows(Protocol):
    """The columns that evidence and replies share, as described in `Evidence`."""

    @property
    def key(self) -> npt.NDArray[np.str_]: ...
    @property
    def sample_id(self) -> npt.NDArray[np.str_]: ...
    @property
    def perm(self) -> Ints: ...
    @property
    def gold_position(self) -> Ints: ...


@dataclass(frozen=True)
class Evidence:
    """n rows, one per request, of N candidates and L decoder layers.

    Attributes:
        log_probs: Float[n, N], natural log-probability of every candidate, displayed order; the probabilities of a row
            from a model sum to 1 (methods do not rely on it).
        gold_position: Int[n], 0-based.
        sample_id: Str[n]. The same for all permutations of a sample.
        perm: Int[n, N], position `j` shows image `perm[i, j]`.
        split: Str[n], "test" or "calibration".
        key: Str[n], the request's content hash; empty if there was no request.
        attention: Float[n, L, N] or None: post-softmax attention of the last query token to each image's own tokens, summed
            over them, averaged over heads (arXiv 2605.11591, Eq. 6).
        attention_delimited: the same including the image delimiters, as in the released code of LAD.
        forward_passes: Int[n], passes of the decoder spent on the row.
        seconds: Float[n], wall-clock time spent on the row (its share of a batch).
        fingerprint: what produced the rows: model, revision, dtype, ... Rows of different fingerprints are never mixed.
        token_map: Object[n] of Float[image tokens], or None: post-softmax attention of the caption's tokens (their mean) to each
            image token, averaged over heads and summed over layers; image by image as displayed (arXiv 2410.02642).
        token_grid: Int[n, N, 3] or None: of each image its number of tokens, and the height and width of the grid of patches
            that its first tokens are, row by row; 0 where they are not known.
        probes: n rows each, by the label of a `lad_eval.tasks.probes.Probe`: the evidence of each row's probe. Only its
            log-probabilities and attention by position mean anything; it has no order and no right answer.
    """

    log_probs: Floats
    gold_position: Ints
    sample_id: npt.NDArray[np.str_]
    perm: Ints
    split: npt.NDArray[np.str_]
    key: npt.NDArray[np.str_]
    attention: Floats | None
    attention_delimited: Floats | None
    forward_passes: Ints
    seconds: Floats
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    probes: Mapping[str, Evidence] = field(default_factory=dict)
    token_map: npt.NDArray[np.object_] | None = None
    token_grid: Ints | None = None

    @classmethod
    def from_arrays(
        cls,
        log_probs: npt.ArrayLike,
        attention: npt.ArrayLike | None = None,
        gold_position: npt.ArrayLike | None = None,
        sample_id: Sequence[str | int] | npt.NDArray[Any] | None = None,
        *,
        attention_delimited: npt.ArrayLike | None = None,
        perm: npt.ArrayLike | None = None,
        split: str | Sequence[str] | npt.NDArray[np.str_] = "test",
        key: Sequence[str] | npt.NDArray[np.str_] | None = None,
        forward_passes: npt.ArrayLike | None = None,
        seconds: npt.ArrayLike | None = None,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> Evidence:
        """Evidence from arrays; shapes as in the class.

        `attention_delimited` defaults to `attention`; `perm` to the identity; `sample_id` to one sample per row.

        Raises:
            EvidenceError: a shape does not fit, a value is not finite or a gold position is not one of the N.
        """
        logs = _floats(log_probs, "log_probs")
        if logs.ndim != 2 or logs.shape[1] < 2:
            raise EvidenceError(f"log_probs must have shape [n, N] with N >= 2, not {list(logs.shape)}.")
        n, candidates = logs.shape
        image = None if attention is None else _floats(attention, "attention")
        delimited = image if attention_delimited is None else _floats(attention_delimited, "attention_delimited")
        if gold_position is None:
            raise EvidenceError(f"gold_position is missing: it must have shape [{n}].")
        evidence = cls(
            log_probs=logs,
            gold_position=_integers(gold_position, "gold_position"),
            sample_id=np.asarray([str(s) for s in (range(n) if sample_id is None else sample_id)], dtype=np.str_),
            perm=np.tile(np.arange(candidates), (n, 1)) if perm is None else _integers(perm, "perm"),
            split=np.full(n, split) if isinstance(split, str) else np.asarray(split, dtype=np.str_),
            key=np.full(n, "") if key is None else np.asarray(key, dtype=np.str_),
            attention=image,
            attention_delimited=delimited,
            forward_passes=np.ones(n, dtype=np.int64) if forward_passes is None else _integers(forward_passes, "forward_passes"),
            seconds=np.zeros(n) if seconds is None else _floats(seconds, "seconds"),
            fingerprint=dict(fingerprint or {}),
        )
        evidence._check()
        return evidence

    def _check(self) -> None:
        n, candidates = self.log_probs.shape
        for column in ("gold_position", "sample_id", "split", "key", "forward_passes", "seconds"):
            if (shape := getattr(self, column).shape) != (n,):
                raise EvidenceError(f"{column} must have shape [{n}] as log_probs has {n} rows, not {list(shape)}.")
        if self.perm.shape != (n, candidates):
            raise EvidenceError(f"perm must have shape [{n}, {candidates}], not {list(self.perm.shape)}.")
        if n and not np.array_equal(np.sort(self.perm, axis=1), np.tile(np.arange(candidates), (n, 1))):
            raise EvidenceError("every row of perm must be a permutation of 0..N-1.")
        if n and not ((self.gold_position >= 0) & (self.gold_position < candidates)).all():
            raise EvidenceError(f"gold_position must lie in 0..{candidates - 1}.")
        if unknown_names := sorted({*self.split.tolist()} - {"test", "calibration"}):
            raise EvidenceError(f"split must be 'test' or 'calibration', not {unknown_names[0]!r}.")
        if not np.isfinite(self.log_probs).all():
            raise EvidenceError("log_probs must be finite.")
        if self.attention is None and self.attention_delimited is not None:
            raise EvidenceError("attention_delimited needs attention, which is missing.")
        if self.attention is not None and self.attention_delimited is not None:
            shapes = list(self.attention.shape), list(self.attention_delimited.shape)
            if shapes[0] != shapes[1]:
                raise EvidenceError(f"attention and attention_delimited differ in shape: {shapes[0]} and {shapes[1]}.")
        for name in ("attention", "attention_delimited"):
            array = getattr(self, name)
            if array is None:
                continue
            if array.ndim != 3 or array.shape[0] != n or not array.shape[1] or array.shape[2] != candidates:
                raise EvidenceError(f"{name} must have shape [{n}, L, {candidates}] with L >= 1, not {list(array.shape)}.")
            if not (np.isfinite(array).all() and (array >= 0).all()):
                raise EvidenceError(f"{name} must be finite and not negative.")

    def __len__(self) -> int:
        return len(self.log_probs)

    @property
    def n_candidates(self) -> int:
        return int(self.log_probs.shape[1])

    @property
    def n_layers(self) -> int:
        return 0 if self.attention is None else int(self.attention.shape[1])

    @property
    def test(self) -> Evidence:
        """Rows of the test split."""
        return self.select(self.split == "test")

    @property
    def calibration(self) -> Evidence:
        """Rows of the calibration split."""
        return self.select(self.split == "calibration")

    def select(self, rows: npt.NDArray[Any] | Sequence[int] | slice) -> Evidence:
        """The rows of a boolean mask, an index array or a slice, in that order."""
        index = rows if isinstance(rows, slice) else np.asarray(rows)
        if not isinstance(index, slice) and not index.size and index.dtype != np.bool_:
            index = index.astype(np.int64)  # an empty list has no integers from which to infer the dtype
        columns = {name: getattr(self, name) for name in _columns()}
        chosen: dict[str, Any] = {name: None if column is None else column[index] for name, column in columns.items()}
        return replace(self, **chosen, probes={label: rows.select(index) for label, rows in self.probes.items()})

    def select_keys(self, keys: Sequence[str]) -> Evidence:
        """The rows of these request keys, in their order; the first of rows with equal keys.

        Raises:
            EvidenceError: a key has no row.
        """
        where = {key: row for row, key in reversed(list(enumerate(self.key.tolist())))}
        missing = [key for key in keys if key not in where]
        if missing:
            raise EvidenceError(f"{len(missing)} of {len(keys)} requests have no evidence yet; run the model first.")
        return self.select(np.asarray([where[key] for key in keys], dtype=np.int64))

    def with_probes(self, probes: Mapping[str, Evidence]) -> Evidence:
        """The same rows together with their probes, by label.

        Raises:
            EvidenceError: a probe has another number of rows or candidates.
        """
        for label, rows in probes.items():
            if rows.log_probs.shape != self.log_probs.shape:
                shapes = f"{list(rows.log_probs.shape)} and {list(self.log_probs.shape)}"
                raise EvidenceError(f"{label} must have a row for each row of the evidence: their log_probs have {shapes}.")
        return replace(self, probes={**self.probes, **probes})

    def with_token_maps(self, maps: Sequence[npt.ArrayLike], grids: npt.ArrayLike) -> Evidence:
        """The same rows with their token maps.

        Args:
            maps: n of Float[image tokens], as `token_map`.
            grids: Int[n, N, 3], as `token_grid`.

        Raises:
            EvidenceError: a shape does not fit, or a value is negative or not finite.
        """
        grid = _integers(grids, "token_grid")
        if grid.shape != (shape := (*self.log_probs.shape, 3)) or len(maps) != len(self):
            raise EvidenceError(
                f"token_grid must have shape {list(shape)} and token_map {len(self)} rows: got {list(grid.shape)}, {len(maps)}."
            )
        if (grid < 0).any() or (grid[..., 0] < 1).any() or (grid[..., 1] * grid[..., 2] > grid[..., 0]).any():
            raise EvidenceError("token_grid must hold at least one token of each image, and as many as its patches.")
        column = np.empty(len(self), dtype=np.object_)
        for row, values in enumerate(maps):
            column[row] = _floats(values, "token_map")
            if column[row].shape != (tokens := (int(grid[row, :, 0].sum()),)):
                raise EvidenceError(f"token_map must have {tokens[0]} tokens in row {row}, not {list(column[row].shape)}.")
            if not (np.isfinite(column[row]).all() and (column[row] >= 0).all()):
                raise EvidenceError("token_map must be finite and not negative.")
        return replace(self, token_map=column, token_grid=grid)

    @classmethod
    def concatenate(cls, parts: Sequence[Evidence]) -> Evidence:
        """Rows of all parts, in order.

        Raises:
            EvidenceError: the parts differ in fingerprint, in N, in L or in having attention; or there are none.
        """
        if not parts:
            raise EvidenceError("There is no evidence to join.")
        first = parts[0]
        if len(parts) == 1:
            return first
        for part in parts[1:]:
            if fingerprint_digest(part.fingerprint) != fingerprint_digest(first.fingerprint):
                off = difference(first.fingerprint, part.fingerprint)
                raise EvidenceError(f"Evidence of different fingerprints cannot be mixed: {off}.")
            if (part.n_candidates, part.n_layers) != (first.n_candidates, first.n_layers):
                raise EvidenceError("Evidence of different numbers of candidates or layers cannot be mixed.")
            if (part.token_map is None) != (first.token_map is None):
                raise EvidenceError("Evidence with token maps and evidence without cannot be mixed.")
        joined: dict[str, Any] = {
            name: None if getattr(first, name) is None else np.concatenate([getattr(p, name) for p in parts])
            for name in _columns()
        }
        shared = set.intersection(*(set(part.probes) for part in parts))
        probes = {label: cls.concatenate([part.probes[label] for part in parts]) for label in sorted(shared)}
        return replace(first, **joined, probes=probes)


def _columns() -> list[str]:
    return [column.name for column in fields(Evidence) if column.name not in ("fingerprint", "probes")]


def fingerprint_digest(fingerprint: Mapping[str, Any]) -> str:
    """Hex digest (16 characters) of a fingerprint, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:16]


def _floats(values: npt.ArrayLike, name: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise EvidenceError(f"{name} must be an array of numbers, every row of equal length.") from None


def _integers(values: npt.ArrayLike, name: str) -> Ints:
    numbers = _floats(values, name)
    if not (np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all()):
        raise EvidenceError(f"{name} must hold whole numbers.")
    return numbers.astype(np.int64)


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """The differences of two fingerprints, such as `dtype is 'float32' and 'bfloat16'`; empty if there are none."""
    keys = sorted(k for k in {*a, *b} if (k in a, a.get(k)) != (k in b, b.get(k)))
    return ", ".join(f"{k} is {_short(a, k)} and {_short(b, k)}" for k in keys)


def _short(fingerprint: Mapping[str, Any], key: str) -> str:
    text = repr(fingerprint[key]) if key in fingerprint else "missing"
    return text if len(text) <= 80 else f"{text[:77]}..."
