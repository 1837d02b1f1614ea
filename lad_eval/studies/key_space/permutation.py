"""Whether a gap is larger than chance: whole samples are exchanged, never tokens, which depend on each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lad_eval.evidence.table import Floats
from lad_eval.studies.key_space.distances import BlockSums
from lad_eval.studies.key_space.tokens import Bools, Ints

PERMUTATIONS = 1_000
SPLITS = 10


def between_kinds(blocks: BlockSums, first: Bools, second: Bools, seed: int) -> float:
    """p-value of MMD^2 between two kinds of tokens: under the null hypothesis each sample's two labels may be swapped.

    Args:
        blocks: sums of the kernel.
        first: Bool[b], the blocks of one kind.
        second: Bool[b], of the other.
        seed: for the permutations.

    Returns:
        (1 + the number of permutations with at least as large a gap) / 1,001; NaN where the gap is not known.
    """
    gap = float(blocks.mmd2(first, second))
    if not np.isfinite(gap):
        return float("nan")
    chance = np.random.default_rng([seed, 1])
    samples, index = np.unique(blocks.sample, return_inverse=True)
    swapped = chance.random((PERMUTATIONS, len(samples)))[:, index] < 0.5
    x = np.where(swapped, second, first)
    y = np.where(swapped, first, second)
    return _p_value(blocks.mmd2(x, y), gap)


def between_halves(blocks: BlockSums, first: Bools, seed: int) -> float:
    """p-value of MMD^2 between two halves of the samples: under the null hypothesis the split is arbitrary.

    Args:
        blocks: sums of the kernel over the compared tokens only.
        first: Bool[b], the blocks of one half.
        seed: of the permutations.

    Returns:
        As `between_kinds`.
    """
    gap = float(blocks.mmd2(first, ~first))
    if not np.isfinite(gap):
        return float("nan")
    dealt = halves(blocks.sample, PERMUTATIONS, [seed, 2])
    return _p_value(blocks.mmd2(dealt == 0, dealt == 1), gap)


def halves(sample: Ints, count: int, seed: int | list[int]) -> Ints:
    """Int[count, n]: 0 and 1 for what belongs to two halves of equal numbers of samples, -1 for an odd sample.

    Args:
        sample: Int[n].
        count: number of splits.
        seed: for the splits.
    """
    samples, index = np.unique(sample, return_inverse=True)
    size = len(samples) // 2
    places = np.random.default_rng(seed).random((count, len(samples))).argsort(axis=1)
    side = np.full((count, len(samples)), -1)
    np.put_along_axis(side, places[:, :size], 0, axis=1)
    np.put_along_axis(side, places[:, size : 2 * size], 1, axis=1)
    dealt: Ints = side[:, index]
    return dealt


def _p_value(permuted: Floats, gap: float) -> float:
    # Sums of the same terms in another order differ in their last digits.
    at_least = permuted >= gap - 1e-12 * max(1.0, abs(gap))
    return float(1 + at_least.sum()) / (1 + len(permuted))


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over the seeds of the split."""

    mean: float
    sd: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of the values; the standard deviation is that of a sample."""
        array = np.asarray(values)
        return cls(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else float("nan"))
