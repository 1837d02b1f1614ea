"""Hard negatives: the pictures of a pool most similar to an anchor among those that a caption distinguishes from it.

Similarities come from blocked matrix products. These round differently from a product of two vectors, so the few pairs
whose rank or admission may depend on it are computed again with `numpy.dot`: the result is that of the obvious loop over all
pairs, ties included.
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
Bits = npt.NDArray[np.uint64]
Rule = Literal["superset", "identical"]

CAPTION_THRESHOLD = 0.9
BLOCK_BYTES = 2**28
"""Memory that the matrices of one block of anchors may take."""
PAIR_BYTES = 40
"""Memory per pair: two products and their differences, a word of categories, four flags."""


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

    def _mine(self, anchors: Sequence[str], pool: Sequence[str], k: int) -> npt.NDArray[np.intp]:
        mine, theirs = self._rows(anchors), self._rows(pool)
        images, texts = self.images[theirs], self.texts[theirs]
        masks = None if self.categories is None else category_masks([*anchors, *pool], self.categories)
        block = max(1, BLOCK_BYTES // (len(pool) * PAIR_BYTES))
        chosen = []
        for start in range(0, len(anchors), block):
            rows = mine[start : start + block]
            banned = rows[:, None] == theirs
            if masks is not None:
                banned |= same_categories(masks[start : start + len(rows)], masks[len(anchors) :], self.rule)
            banned |= self._same_caption(self.texts[rows], texts)
            for offset in np.flatnonzero((~banned).sum(axis=1) < k):
                count = int((~banned[offset]).sum())
                raise TooFewCandidatesError(
                    f"{anchors[start + offset]}: {count} of the pool's {len(pool)} images can be its hard negatives, "
                    f"but {k} are needed; give more images, or a task with fewer candidates."
                )
            chosen.append(top_k(self.images[rows], images, banned, k))
        return np.concatenate(chosen)

    def _rows(self, names: Sequence[str]) -> npt.NDArray[np.intp]:
        try:
            return np.array([self._row[name] for name in names], np.intp)
        except KeyError as error:
            raise DataError(f"{error.args[0]}: there is no embedding of this image; prepare the data again.") from None

    def _same_caption(self, anchors: Floats, pool: Floats) -> npt.NDArray[np.bool_]:
        """Bool[a, p]: whether the captions are as similar as the threshold or more."""
        similarity = product(anchors, pool)
        near = np.argwhere(np.abs(similarity - self.threshold) <= rounding(anchors, pool))
        same: npt.NDArray[np.bool_] = similarity >= self.threshold
        for a, p in near:
            same[a, p] = float(np.dot(anchors[a], pool[p])) >= self.threshold
        return same


def top_k(anchors: Floats, pool: Floats, banned: npt.NDArray[np.bool_], k: int) -> npt.NDArray[np.intp]:
    """Int[a, k]: the pool's rows most similar to each anchor, most similar first, the earlier row first among equals.

    Args:
        anchors: Float[a, D].
        pool: Float[p, D].
        banned: Bool[a, p], pairs that are left out; at least `k` must remain of every row.
        k: how many.
    """
    similarity = product(anchors, pool)
    similarity[banned] = -np.inf
    place = similarity.shape[1] - k
    kth = np.partition(similarity, place, axis=1)[:, place]
    # No member of the true first k lies further below the k-th product than two rounding errors.
    contenders = similarity >= (kth - 2 * rounding(anchors, pool))[:, None]
    chosen = np.empty((len(anchors), k), np.intp)
    for a, row in enumerate(contenders):
        columns = np.flatnonzero(row)
        exact = np.array([np.dot(anchors[a], pool[column]) for column in columns])
        chosen[a] = columns[np.argsort(-exact, kind="stable")[:k]]
    return chosen


def product(anchors: Floats, pool: Floats) -> npt.NDArray[np.float32]:
    """Float[a, p]: inner products, in single precision or better: matrix products of half precision are slow."""
    wide = np.float64 if anchors.dtype == np.float64 else np.float32
    result: npt.NDArray[np.float32] = anchors.astype(wide, copy=False) @ pool.astype(wide, copy=False).T
    return result


def rounding(anchors: Floats, pool: Floats) -> float:
    """Largest difference of a matrix product and `numpy.dot`: two sums of D products, and the rounding of the result."""
    wide = np.float64 if anchors.dtype == np.float64 else np.float32
    longest = float(np.sqrt(_largest_square(anchors.astype(wide, copy=False)) * _largest_square(pool.astype(wide, copy=False))))
    summing = anchors.shape[1] * float(np.finfo(wide).eps)
    return float((summing + float(np.finfo(anchors.dtype).eps)) * longest)


def _largest_square(rows: Floats) -> float:
    return float(np.einsum("ij,ij->i", rows, rows).max())


def category_masks(names: Sequence[str], categories: Mapping[str, frozenset[int]]) -> Bits:
    """UInt64[n, W]: one bit per category that occurs."""
    known = {category: bit for bit, category in enumerate(sorted(set().union(*(categories[name] for name in names))))}
    flags = np.zeros((len(names), -(-max(1, len(known)) // 64) * 64), np.uint8)
    for row, name in enumerate(names):
        flags[row, [known[category] for category in categories[name]]] = 1
    return np.packbits(flags, axis=1).view(np.uint64)


def same_categories(anchors: Bits, pool: Bits, rule: Rule) -> npt.NDArray[np.bool_]:
    """Bool[a, p]: whether the rule drops the pair; computed word by word to hold one word per pair only."""
    dropped = np.ones((len(anchors), len(pool)), bool)
    for word in range(anchors.shape[1]):
        mine, theirs = anchors[:, word, None], pool[:, word]
        dropped &= (mine & ~theirs) == 0 if rule == "superset" else mine == theirs
    return dropped
