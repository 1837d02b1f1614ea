"""Distances between sets of keys: against double loops, values worked by hand, and the laws of a test of significance."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import kstest

from lad_eval.studies.key_space import distances
from lad_eval.studies.key_space.distances import (
    BANDWIDTHS,
    binned,
    block_sums,
    jensen_shannon,
    median_distance,
    probe_auc,
    project,
)
from lad_eval.studies.key_space.permutation import PERMUTATIONS, Spread, between_halves, between_kinds, halves


def tokens(samples=12, each=5, width=7, shift=0.0, seed=0, kinds=2):
    """Tokens of two kinds, of samples of unequal lengths, that lean towards a mean of their sample."""
    chance = np.random.default_rng(seed)
    points, sample, kind = [], [], []
    for number in range(samples):
        for group in range(kinds):
            count = each + number % 3 - group
            center = chance.normal(size=width) + shift * group
            points.append(center + chance.normal(size=(count, width)))
            sample += [number] * count
            kind += [group] * count
    order = chance.permutation(len(sample))
    return np.concatenate(points)[order], np.asarray(sample)[order], np.asarray(kind)[order]


def kernel(x, y, s):
    return np.mean([math.exp(-((x - y) ** 2).sum() / (2 * m * s**2)) for m in BANDWIDTHS])


def slow_mmd2(points, sample, first, second, s):
    def mean(a, b):
        values = [kernel(points[i], points[j], s) for i in a for j in b if sample[i] != sample[j]]
        return sum(values) / len(values)

    return mean(first, first) + mean(second, second) - 2 * mean(first, second)


@pytest.mark.parametrize("chunk", [1_000, 9])
def test_block_sums_are_those_of_a_double_loop(chunk, monkeypatch):
    monkeypatch.setattr(distances, "_CHUNK", chunk)
    points, sample, kind = tokens()
    blocks = block_sums(points, sample, kind, 2.5)
    assert len(blocks.sums) == 24
    for a, b in itertools.product(range(24), repeat=2):
        left = np.flatnonzero((sample == blocks.sample[a]) & (kind == blocks.kind[a]))
        right = np.flatnonzero((sample == blocks.sample[b]) & (kind == blocks.kind[b]))
        same = blocks.sample[a] == blocks.sample[b]
        expected = 0.0 if same else sum(kernel(points[i], points[j], 2.5) for i in left for j in right)
        assert blocks.sums[a, b] == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert blocks.pairs[a, b] == (0 if same else len(left) * len(right))
    first, second = blocks.kind == 0, blocks.kind == 1
    slow = slow_mmd2(points, sample, np.flatnonzero(kind == 0), np.flatnonzero(kind == 1), 2.5)
    assert float(blocks.mmd2(first, second)) == pytest.approx(slow, abs=1e-6)
    half = blocks.select(first)
    even = half.sample % 2 == 0
    slow = slow_mmd2(
        points, sample, np.flatnonzero((kind == 0) & (sample % 2 == 0)), np.flatnonzero((kind == 0) & (sample % 2 == 1)), 2.5
    )
    assert float(half.mmd2(even, ~even)) == pytest.approx(slow, abs=1e-6)


def test_merged_blocks_have_the_same_gap():
    points, sample, kind = tokens(kinds=3)
    blocks = block_sums(points, sample, kind, 2.5)
    merged = blocks.merged(blocks.kind > 0)
    assert len(merged.sums) == 24
    expected = float(blocks.mmd2(blocks.kind == 0, blocks.kind > 0))
    assert float(merged.mmd2(merged.kind == 0, merged.kind == 1)) == pytest.approx(expected, abs=1e-12)
    assert merged.pairs[0].tolist() == [0, 0, *np.tile([5, 7, 6, 9, 7, 11], 4)[2:] * 5]


def test_mmd_by_hand():
    # Two samples with one token of each kind: within a kind one pair at distance 2, between kinds two pairs at distance 2 or 0.
    points = np.array([[0.0], [2.0], [2.0], [0.0]])
    blocks = block_sums(points, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), 1.0)
    near = np.mean([math.exp(-4 / (2 * m)) for m in BANDWIDTHS])
    assert float(blocks.mmd2(blocks.kind == 0, blocks.kind == 1)) == pytest.approx(near + near - 2 * 1.0, abs=1e-6)


def test_mmd_of_one_sample_is_unknown():
    points, sample, kind = tokens(samples=1)
    blocks = block_sums(points, sample, kind, 1.0)
    assert math.isnan(blocks.mmd2(blocks.kind == 0, blocks.kind == 1))
    assert math.isnan(between_kinds(blocks, blocks.kind == 0, blocks.kind == 1, 0))


def test_pairs_of_one_sample_would_make_halves_differ():
    chance = np.random.default_rng(0)
    points, sample, _ = tokens(samples=40, each=20, kinds=1, seed=3)
    blocks = block_sums(points, sample, np.zeros(len(sample), dtype=int), median_distance(points, 0))
    gaps = blocks.mmd2(*(halves(blocks.sample, 50, 1) == side for side in (0, 1)))
    assert abs(gaps.mean()) < 2e-3
    naive = []
    for dealt in halves(sample, 5, 1):
        x, y = points[dealt == 0], points[dealt == 1]
        x, y = x[chance.permutation(len(x))[:150]], y[chance.permutation(len(y))[:150]]
        same = block_sums(np.concatenate([x, y]), np.arange(300), np.repeat([0, 1], 150), median_distance(points, 0))
        naive.append(float(same.mmd2(same.kind == 0, same.kind == 1)))
    assert np.mean(naive) > 5e-3 > abs(gaps.mean())


def test_a_planted_shift_is_found_and_none_is_not():
    for shift, found in [(0.0, False), (2.0, True)]:
        points, sample, kind = tokens(samples=40, shift=shift)
        blocks = block_sums(points, sample, kind, median_distance(points, 0))
        p = between_kinds(blocks, blocks.kind == 0, blocks.kind == 1, 0)
        assert (p == 1 / (1 + PERMUTATIONS)) is found
        assert (p < 0.05) is found


def test_p_values_of_two_halves_are_uniform():
    points, sample, _ = tokens(samples=60, each=6, kinds=1, seed=5)
    blocks = block_sums(points, sample, np.zeros(len(sample), dtype=int), median_distance(points, 0))
    p = [between_halves(blocks, dealt == 0, seed) for seed, dealt in enumerate(halves(blocks.sample, 200, 99))]
    assert kstest(p, "uniform").pvalue > 0.01
    assert 0.02 <= np.mean(np.asarray(p) <= 0.05) <= 0.09


def test_p_values_between_kinds_without_a_gap_are_uniform():
    p = []
    for seed in range(200):
        points, sample, kind = tokens(samples=16, each=4, seed=1000 + seed)
        blocks = block_sums(points, sample, kind, 3.0)
        p.append(between_kinds(blocks, blocks.kind == 0, blocks.kind == 1, seed))
    assert kstest(p, "uniform").pvalue > 0.01
    assert 0.02 <= np.mean(np.asarray(p) <= 0.05) <= 0.09


def test_halves_are_of_samples_and_equal():
    sample = np.repeat(np.arange(7), 3)
    dealt = halves(sample, 20, 0)
    for row in dealt:
        sides = [set(row[sample == number].tolist()) for number in range(7)]
        assert all(len(side) == 1 for side in sides)
        counts = [sum(side == {which} for side in sides) for which in (0, 1, -1)]
        assert counts == [3, 3, 1]
    assert len({tuple(row) for row in dealt}) > 10
    assert np.array_equal(dealt, halves(sample, 20, 0))


def test_jensen_shannon_by_hand_and_by_scipy():
    # All of one set in one bin, all of the other in another: one bit. The same set: none.
    assert jensen_shannon(np.zeros((5, 1), int), np.full((9, 1), 3)) == pytest.approx(1, abs=1e-6)
    assert jensen_shannon(np.array([[1], [2]]), np.array([[2], [1]])) == pytest.approx(0, abs=1e-9)
    # Half of the second set shares the first one's bin: H(3/4, 1/4) - H(1/2, 1/2) / 2.
    expected = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)) - 0.5
    assert jensen_shannon(np.array([[0], [0]]), np.array([[0], [7]])) == pytest.approx(expected, abs=1e-6)
    chance = np.random.default_rng(0)
    scores = np.concatenate([chance.normal(size=(300, 3)), chance.normal(1, 2, size=(200, 3))])
    bins = binned(scores)
    assert bins.min() == 0
    assert bins.max() == 99
    by_dimension = []
    for column in range(3):
        edges = np.linspace(*np.percentile(scores[:, column], [0.5, 99.5]), 101)
        clipped = np.clip(scores[:, column], edges[0], edges[-1])
        p, q = (np.histogram(part, edges)[0] / len(part) + 1e-10 for part in (clipped[:300], clipped[300:]))
        by_dimension.append(jensenshannon(p, q, base=2) ** 2)
    assert jensen_shannon(bins[:300], bins[300:]) == pytest.approx(np.mean(by_dimension), abs=1e-6)
    weighted = jensen_shannon(bins[:300], bins[300:], np.array([0.0, 0.0, 2.0]))
    assert weighted == pytest.approx(by_dimension[2], abs=1e-6)


def test_the_projection_keeps_distances_where_it_keeps_all_dimensions():
    chance = np.random.default_rng(0)
    keys = chance.normal(size=(200, 6)) * [1, 10, 100, 1, 1, 0]
    made = project(keys, 0)
    assert made.scores.shape == (200, 6)
    assert made.explained == pytest.approx(1, abs=1e-6)
    standard = (keys - keys.mean(axis=0)) / np.where(keys.std(axis=0) > 0, keys.std(axis=0), 1)
    for i, j in [(0, 1), (5, 77)]:
        assert np.linalg.norm(made.scores[i] - made.scores[j]) == pytest.approx(
            np.linalg.norm(standard[i] - standard[j]), rel=1e-4
        )
    again = project(keys, 0)
    assert np.array_equal(made.scores, again.scores)
    wide = project(chance.normal(size=(300, 120)), 0)
    assert wide.scores.shape == (300, 50)
    assert 0.3 < wide.explained < 0.9


def test_median_distance_by_hand():
    assert median_distance(np.array([[0.0], [1.0], [3.0]]), 0) == pytest.approx(2)


def test_the_probe_is_half_right_by_chance_and_always_right_where_kinds_lie_apart():
    for shift, low, high in [(0.0, 0.35, 0.65), (5.0, 0.99, 1.0)]:
        points, sample, kind = tokens(samples=30, each=10, shift=shift)
        groups = [sample[kind == group] for group in (0, 1)]
        area = probe_auc(points[kind == 0], points[kind == 1], groups, 0)
        assert low <= area <= high
    points, sample, kind = tokens(samples=1)
    assert math.isnan(probe_auc(points[kind == 0], points[kind == 1], [sample[kind == 0], sample[kind == 1]], 0))


def test_the_probe_is_tested_on_other_samples():
    # Kinds that differ in nothing but what is their sample's own: learned by heart, and of no use for others.
    chance = np.random.default_rng(0)
    sample = np.repeat(np.arange(20), 20)
    kind = np.tile(np.repeat([0, 1], 10), 20)
    points = np.zeros((400, 20))
    points[np.arange(400), sample] = np.where(kind == 1, 1, -1) * chance.choice([-1, 1], size=20)[sample] * 5
    area = probe_auc(points[kind == 0], points[kind == 1], [sample[kind == 0], sample[kind == 1]], 0)
    assert area == pytest.approx(0.5, abs=0.05)


def test_spread_by_hand():
    spread = Spread.of([1.0, 3.0])
    assert (spread.mean, spread.sd) == (2.0, pytest.approx(math.sqrt(2)))
    assert math.isnan(Spread.of([1.0]).sd)
