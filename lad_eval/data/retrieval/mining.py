"""Hard negatives: the pictures of a pool most similar to an anchor among those that a caption distinguishes from it.

Only the similarity of pictures is computed for all pairs, in blocked matrix products. Categories and captions are compared for
the pictures most similar to an anchor, as many as it takes. Matrix products round differently from a product of two vectors, so
the few pairs whose rank or admission may depend on it are computed again with `numpy.dot`: the result is that of the obvious loop
over all pairs, ties included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lad_eval.data.retrieval.protocols import TooFewCandidatesError
from lad_eval.errors import DataError

Floats = npt.NDArray[Any]
Rows = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint64]
Rule = Literal["superset", "identical"]

CAPTION_THRESHOLD = 0.9
BLOCK_BYTES = 2**28
"""Memory that the matrices of one block of anchors may take."""
PAIR_BYTES = 40
"""Memory per pair where a block compares all captions: two products and their differences, a word of categories, four flags."""
FIRST = 32
"""The most similar pictures that are compared first; four times as many each time they do not suffice."""
SHARE = 1 / 16
"""The part of the pool up to which an anchor's pictures are looked up one by one; beyond it, a matrix product costs less."""


@dataclass(frozen=True, eq=False)
class Miner:
    """Finds the hardest negatives (arXiv 2605.11591, appendix C, and the released code's `sample_adversarial`).

    A picture of the pool is admitted if it is not the anchor, its caption's similarity to the anchor's is below `threshold`, and
    its categories pass the rule. Of those admitted the `k` most similar pictures are taken, the most similar first; among equally
    similar ones the one that is earlier in the pool.

    Attributes:
        names: of the pictures.
        images: Float[n, D], their embeddings, L2-normalised; similarities are taken in this array's dtype.
        texts: Float[n, D], those of their captions, L2-normalised.
        categories: category ids by name; None: the data has none, and the rule does not apply.
        rule: `superset` drops pictures that show every category of the anchor (the code), `identical` those that show exactly
            its categories (the paper).
        threshold: two captions whose cosine similarity is this or more count as one.
    """

    names: Sequence[str]
    images: Floats
    texts: Floats
    categories: Mapping[str, frozenset[int]] | None = None
    rule: Rule = "superset"
    threshold: float = CAPTION_THRESHOLD

    @cached_property
    def _row(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names)}

    def __call__(self, anchors: Sequence[str], pool: Sequence[str], k: int) -> list[list[str]]:
        """Names of the `k` hardest negatives of every anchor, hardest first.

        Raises:
            TooFewCandidatesError: an anchor has fewer than `k` admissible pictures.
            DataError: a name has no embedding.
        """
        distinct = list(dict.fromkeys(anchors))
        nearest = self._mine(distinct, pool, k) if distinct else np.empty((0, k), np.intp)
        negatives = {anchor: [pool[i] for i in row] for anchor, row in zip(distinct, nearest, strict=True)}
        return [negatives[anchor] for anchor in anchors]

    def _mine(self, anchors: Sequence[str], pool: Sequence[str], k: int) -> Rows:
        pairs = _Pairs(self, self._rows(anchors), self._rows(pool))
        images = self.images[pairs.columns]
        wide, margin = widen(images), 2 * rounding(self.images)
        block = max(1, BLOCK_BYTES // (len(pool) * PAIR_BYTES))
        chosen = np.empty((len(anchors), k), np.intp)
        for start in range(0, len(anchors), block):
            rows = np.arange(start, min(start + block, len(anchors)))
            mine = self.images[pairs.rows[rows]]
            similarity = widen(mine) @ wide.T
            left, compared = rows - start, max(FIRST, 2 * k)
            while len(left) and compared <= SHARE * len(pool):
                some = similarity if len(left) == len(rows) else similarity[left]
                short = []
                for a, values, bound in zip(left, some, lower_bound(some, compared), strict=True):
                    # All that can be among the first k, provided that k of those admitted reach the bound.
                    columns = np.flatnonzero(values >= bound - margin)
                    if len(columns) <= SHARE * len(pool):
                        columns = pairs.admitted(rows[a], columns)
                        if np.count_nonzero(values[columns] >= bound) >= k:
                            chosen[rows[a]] = top_k(mine[a], images, columns, values[columns], k, margin)
                            continue
                    short.append(a)
                left, compared = np.array(short, np.intp), 4 * compared
            for a, admitted in zip(left, pairs.all_admitted(rows[left]), strict=True) if len(left) else ():
                columns = np.flatnonzero(admitted)
                if len(columns) < k:
                    raise TooFewCandidatesError(
                        f"{anchors[rows[a]]}: {len(columns)} of the pool's {len(pool)} images can be its hard negatives, "
                        f"but {k} are needed; give more images, or a task with fewer candidates."
                    )
                chosen[rows[a]] = top_k(mine[a], images, columns, similarity[a, columns], k, margin)
        return chosen

    def _rows(self, names: Sequence[str]) -> Rows:
        try:
            return np.array([self._row[name] for name in names], np.intp)
        except KeyError as error:
            raise DataError(f"{error.args[0]}: there is no embedding of this image; prepare the data again.") from None


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Which pairs of an anchor and a picture of the pool are admitted.

    Attributes:
        miner: says by which rules.
        rows: Int[a], the anchors among the miner's pictures.
        columns: Int[p], the pool's pictures among them.
    """

    miner: Miner
    rows: Rows
    columns: Rows

    @cached_property
    def _masks(self) -> tuple[Bits, Bits] | None:
        """UInt64[a, W], UInt64[p, W]: the categories of both; None: the data has none."""
        if self.miner.categories is None:
            return None
        names = [self.miner.names[row] for row in np.concatenate([self.rows, self.columns])]
        masks = category_masks(names, self.miner.categories)
        return masks[: len(self.rows)], masks[len(self.rows) :]

    @cached_property
    def _rounding(self) -> float:
        return rounding(self.miner.texts)

    def admitted(self, row: int, columns: Rows) -> Rows:
        """Those of the pool's `columns` that are admitted for one anchor."""
        columns = columns[~self._alike(np.array([row]), columns)[0]]
        admitted: Rows = columns[~self._same_caption(np.array([row]), columns)[0]]
        return admitted

    def all_admitted(self, rows: Rows) -> Flags:
        """Bool[a, p]: whether each of the pool's pictures is admitted for some of the anchors."""
        everything = np.arange(len(self.columns))
        dropped = self._alike(rows, everything)
        dropped |= self._same_caption(rows, everything)
        return np.logical_not(dropped, out=dropped)

    def _alike(self, rows: Rows, columns: Rows) -> Flags:
        """Bool[a, p]: whether both are one picture, or the categories forbid it."""
        dropped: Flags = self.rows[rows][:, None] == self.columns[columns]
        if self._masks is not None:
            mine, theirs = self._masks
            dropped |= same_categories(mine[rows], theirs[columns], self.miner.rule)
        return dropped

    def _same_caption(self, rows: Rows, columns: Rows) -> Flags:
        """Bool[a, p]: whether the captions are as similar as the threshold or more."""
        anchors, pool = self.miner.texts[self.rows[rows]], self.miner.texts[self.columns[columns]]
        similarity = widen(anchors) @ widen(pool).T
        same: Flags = similarity >= self.miner.threshold
        for a, p in np.argwhere(np.abs(similarity - self.miner.threshold) <= self._rounding):
            same[a, p] = float(np.dot(anchors[a], pool[p])) >= self.miner.threshold
        return same


def lower_bound(values: Floats, count: int) -> Floats:
    """Float[a]: a bound that at least `count` values of each row reach, and seldom many more.

    It is the `count`-th largest of the maxima of disjoint groups, which takes a tenth of the time of a partition of all values.

    Args:
        values: Float[a, p].
        count: at most p.
    """
    groups = min(values.shape[1], 16 * count)
    whole = values.shape[1] // groups * groups
    largest = values[:, :whole].reshape(len(values), -1, groups).max(axis=1)
    bound: Floats = np.partition(largest, groups - count, axis=1)[:, groups - count]
    return bound


def top_k(anchor: Floats, pool: Floats, columns: Rows, similarity: Floats, k: int, margin: float) -> Rows:
    """Int[k]: those of `columns` most similar to the anchor, most similar first, the earlier one first among equals.

    Args:
        anchor: Float[D].
        pool: Float[p, D].
        columns: Int[c], rows of the pool, ascending; at least `k`.
        similarity: Float[c], theirs to the anchor, from a matrix product.
        k: how many.
        margin: twice the largest rounding error of such a product. No member of the true first k lies further below the k-th.
    """
    place = len(columns) - k
    contenders = columns[similarity >= np.partition(similarity, place)[place] - margin]
    exact = np.array([np.dot(anchor, pool[column]) for column in contenders])
    first: Rows = contenders[np.argsort(-exact, kind="stable")[:k]]
    return first


def widen(vectors: Floats) -> Floats:
    """The same numbers in single precision or better: matrix products of half precision are slow."""
    return vectors.astype(np.float64 if vectors.dtype == np.float64 else np.float32, copy=False)


def rounding(vectors: Floats) -> float:
    """Largest difference of a matrix product and `numpy.dot`: two sums of D products, and the rounding of the result."""
    wide = np.float64 if vectors.dtype == np.float64 else np.float32
    longest = float(np.einsum("ij,ij->i", vectors, vectors, dtype=wide).max())
    summing = vectors.shape[1] * float(np.finfo(wide).eps)
    return float((summing + float(np.finfo(vectors.dtype).eps)) * longest)


def category_masks(names: Sequence[str], categories: Mapping[str, frozenset[int]]) -> Bits:
    """UInt64[n, W]: one bit per category that occurs."""
    known = {category: bit for bit, category in enumerate(sorted(set().union(*(categories[name] for name in names))))}
    flags = np.zeros((len(names), -(-max(1, len(known)) // 64) * 64), np.uint8)
    bits = [known[category] for name in names for category in categories[name]]
    flags[np.repeat(np.arange(len(names)), [len(categories[name]) for name in names]), bits] = 1
    return np.packbits(flags, axis=1).view(np.uint64)


def same_categories(anchors: Bits, pool: Bits, rule: Rule) -> npt.NDArray[np.bool_]:
    """Bool[a, p]: whether the rule drops the pair; computed word by word to hold one word per pair only."""
    dropped = np.ones((len(anchors), len(pool)), bool)
    for word in range(anchors.shape[1]):
        mine, theirs = anchors[:, word, None], pool[:, word]
        dropped &= (mine & ~theirs) == 0 if rule == "superset" else mine == theirs
    return dropped
