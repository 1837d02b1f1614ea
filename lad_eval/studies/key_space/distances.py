"""The distance between two sets of keys: MMD^2 from block sums of a kernel, Jensen-Shannon divergence, a linear probe.

Tokens of one sample depend on each other, so pairs of them are left out of all terms of MMD^2; with them two halves of one
modality would seem to differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from lad_eval.evidence.table import Floats
from lad_eval.studies.key_space.tokens import Bools, Ints

DIMENSIONS = 50
BINS = 100
BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the Gaussian kernels, as multiples of the squared median distance; each kernel is the square of the one after it."""
_MEDIAN_TOKENS = 2_000
_PROBE_TOKENS = 2_000
_PROBE_FOLDS = 5
_CHUNK = 64
"""Rows of the kernel matrix that are computed at once: few enough to stay in the processor's cache."""
_FLOOR = 1e-10


@dataclass(frozen=True)
class Projection:
    """Keys in the form in which they are compared.

    Attributes:
        scores: Float[n, d], principal components of the standardised keys.
        variance: Float[d], of each.
        explained: the share of the standardised keys' variance that the components hold, 0 to 1.
    """

    scores: Floats
    variance: Floats
    explained: float


def project(keys: Floats, seed: int) -> Projection:
    """Every dimension standardised on the pool, then its first DIMENSIONS principal components, fewer where keys have fewer.

    Args:
        keys: Float[n, D] of the pool.
        seed: of the randomised decomposition.
    """
    spread = keys.std(axis=0)
    standard = (keys - keys.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    count = min(DIMENSIONS, *standard.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _, _, axes = torch.pca_lowrank(torch.from_numpy(standard).float(), q=count, center=False, niter=4)
    scores = standard @ axes.double().numpy()
    variance = scores.var(axis=0)
    total = float(standard.var(axis=0).sum())
    return Projection(scores, variance, float(variance.sum()) / total if total else 1.0)


def median_distance(points: Floats, seed: int) -> float:
    """Of the pairs of at most 2,000 points."""
    chosen = np.random.default_rng(seed).permutation(len(points))[:_MEDIAN_TOKENS]
    taken = torch.from_numpy(points[chosen])
    distances = torch.cdist(taken, taken, compute_mode="use_mm_for_euclid_dist")
    return float(distances[torch.ones_like(distances, dtype=torch.bool).triu(1)].median())


@dataclass(frozen=True)
class BlockSums:
    """Sums of the kernel over pairs of tokens, block by block; a block holds one sample's tokens of one kind.

    Attributes:
        sums: Float[b, b], 0 where both blocks are of one sample.
        pairs: Float[b, b], how many pairs each sum has.
        sample: Int[b], of each block.
        kind: Int[b], of each block.
    """

    sums: Floats
    pairs: Floats
    sample: Ints
    kind: Ints

    def mmd2(self, first: npt.ArrayLike, second: npt.ArrayLike) -> Floats:
        """MMD^2 of pairs of sets of blocks, Float[...]: the mean kernel within each, less twice that between them.

        Args:
            first: Bool or Float[..., b], which blocks belong to the first set.
            second: the same of the second; NaN comes out where a set has fewer than two samples.

        Source: Gretton et al. 2012, Eq. 3 without its diagonal, where the diagonal is all pairs of one sample.
        """
        x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            within_x, within_y, between = _totals(self.sums, x, y) / _totals(self.pairs, x, y)
        gap: Floats = within_x + within_y - 2 * between
        return gap

    def merged(self, kind: Ints) -> BlockSums:
        """Blocks of one sample with the same new kind, Int[b], made one block."""
        names, index = np.unique(np.stack([self.sample, kind]), axis=1, return_inverse=True)
        members = (np.arange(names.shape[1])[:, None] == index.reshape(-1)).astype(np.float64)
        return BlockSums(members @ self.sums @ members.T, members @ self.pairs @ members.T, names[0], names[1])

    def select(self, members: Bools) -> BlockSums:
        """Of some of the blocks, Bool[b]."""
        square = np.ix_(members, members)
        return BlockSums(self.sums[square], self.pairs[square], self.sample[members], self.kind[members])


def _totals(matrix: Floats, x: Floats, y: Floats) -> Floats:
    """Float[3, ...]: the matrix summed over the pairs within the first set, within the second, and between them."""
    of_x, of_y = x @ matrix, y @ matrix
    return np.stack([(of_x * x).sum(axis=-1), (of_y * y).sum(axis=-1), (of_x * y).sum(axis=-1)])


def block_sums(points: Floats, sample: Ints, kind: Ints, bandwidth: float) -> BlockSums:
    """The kernel, a mean of Gaussians of five bandwidths, summed over all pairs of tokens, block by block.

    The five are powers of one exponential: with u = exp(-|x - y|^2 / (8 s^2)) they are u, u^2, u^4, u^8 and u^16.

    Args:
        points: Float[n, d].
        sample: Int[n].
        kind: Int[n].
        bandwidth: s.
    """
    order = np.lexsort((kind, sample))
    points, sample, kind = points[order], sample[order], kind[order]
    changes = np.flatnonzero((np.diff(sample) != 0) | (np.diff(kind) != 0)) + 1
    starts = np.concatenate([[0], changes])
    counts = np.diff(np.concatenate([starts, [len(points)]])).astype(np.float64)
    sums = np.zeros((len(starts), len(starts)))
    scaled = torch.from_numpy((points - points.mean(axis=0)) / (np.sqrt(2 * max(BANDWIDTHS)) * bandwidth)).float()
    squares = scaled.square().sum(dim=1)
    for low in _chunks(starts, len(points)):
        first, last = np.searchsorted(starts, [low.start, low.stop])
        # Blocks before this chunk have met it already: the matrix is symmetric.
        rest = slice(low.start, None)
        exponents = torch.addmm(-squares[rest], scaled[low], scaled[rest].T, alpha=2).sub_(squares[low, None])
        u = exponents.clamp_(max=0).exp_()
        total = u.clone()
        for _ in BANDWIDTHS[1:]:
            total += u.square_()
        down = np.add.reduceat(total.numpy(), starts[first:last] - low.start, axis=0)
        sums[first:last, first:] = np.add.reduceat(down, starts[first:] - low.start, axis=1, dtype=np.float64)
    upper = np.triu(sums, 1)
    sums = (upper + upper.T + np.diag(np.diag(sums))) / len(BANDWIDTHS)
    distinct = sample[starts][:, None] != sample[starts][None, :]
    return BlockSums(
        np.where(distinct, sums, 0.0), np.where(distinct, np.outer(counts, counts), 0.0), sample[starts], kind[starts]
    )


def _chunks(starts: Ints, total: int) -> list[slice]:
    """Slices of about _CHUNK tokens that end where blocks do."""
    ends = [0]
    for start in [*starts[1:].tolist(), total]:
        if start - ends[-1] >= _CHUNK or start == total:
            ends.append(start)
    return [slice(low, high) for low, high in itertools.pairwise(ends) if high > low]


def binned(scores: Floats) -> Ints:
    """Int[n, d]: the bin of each score, of 100 between the pool's 0.5 and 99.5 percentiles; what lies outside is clipped."""
    low, high = np.percentile(scores, [0.5, 99.5], axis=0)
    width = np.where(high > low, high - low, 1.0)
    places = np.floor((scores - low) / width * BINS)
    bins: Ints = np.clip(places, 0, BINS - 1).astype(np.int64)
    return bins


def jensen_shannon(first: Ints, second: Ints, weights: Floats | None = None) -> float:
    """Jensen-Shannon divergence in bits, 0 to 1, the mean over dimensions.

    Args:
        first: Int[n, d], bins of one set, from `binned`.
        second: Int[m, d], of the other.
        weights: Float[d], of the dimensions; None: equal weights.
    """
    p, q = _histograms(first), _histograms(second)
    middle = (p + q) / 2
    divergence = (_entropy(middle) - (_entropy(p) + _entropy(q)) / 2).clip(min=0)
    return float(np.average(divergence, weights=weights))


def _histograms(bins: Ints) -> Floats:
    """Float[d, BINS]: rows add up to 1, and no entry is 0."""
    dimensions = bins.shape[1]
    flat = (bins + BINS * np.arange(dimensions)).ravel()
    counts = np.bincount(flat, minlength=dimensions * BINS).reshape(dimensions, BINS)
    shares = counts / len(bins) + _FLOOR
    histograms: Floats = shares / shares.sum(axis=1, keepdims=True)
    return histograms


def _entropy(p: Floats) -> Floats:
    entropy: Floats = -(p * np.log2(p)).sum(axis=1)
    return entropy


def probe_auc(first: Floats, second: Floats, groups: Sequence[Ints], seed: int) -> float:
    """Area under the ROC curve of a logistic regression that separates two sets, on samples that it was not fitted to.

    Args:
        first: Float[n, d], of one set.
        second: Float[m, d], of the other; at most 2,000 of each are used.
        groups: the samples of both; no sample is in two folds.
        seed: for the choice of the tokens that are used.

    Returns:
        The mean over 5 folds; NaN where there are fewer than two samples.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold

    chance = np.random.default_rng(seed)
    chosen = [np.sort(chance.permutation(len(group))[:_PROBE_TOKENS]) for group in groups]
    x = np.concatenate([first[chosen[0]], second[chosen[1]]])
    y = np.repeat([0, 1], [len(chosen[0]), len(chosen[1])])
    samples = np.concatenate([group[index] for group, index in zip(groups, chosen, strict=True)])
    folds = min(_PROBE_FOLDS, len(np.unique(samples)))
    if folds < 2:
        return float("nan")
    x = x / np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    areas = []
    for train, test in GroupKFold(folds).split(x, y, samples):
        if len(np.unique(y[train])) < 2 or len(np.unique(y[test])) < 2:
            continue
        model = LogisticRegression(max_iter=200).fit(x[train], y[train])
        areas.append(float(roc_auc_score(y[test], model.decision_function(x[test]))))
    return float(np.mean(areas)) if areas else float("nan")
