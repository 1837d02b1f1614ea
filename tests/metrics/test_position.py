"""The test of "position does not matter": by hand, against every dealing, uniform under H0, sharp under bias."""

from itertools import permutations, product

import numpy as np
import pytest

from lad_eval.metrics import position_test

ORDERS = [[0, 1, 2, 3], [0, 3, 1, 2], [1, 0, 2, 3], [3, 0, 2, 1], [3, 0, 1, 2]]
TWO = [[0, 1], [1, 0]]


def every_dealing(grid):
    """The p-value without chance: all T! dealings of all samples, one after the other, in plain loops."""
    S = len(grid.chosen)
    ways = []
    for s in range(S):
        place = [{image: j for j, image in enumerate(order)} for order in grid.perm[s].tolist()]
        ways.append(
            [[place[t][image] for t, image in enumerate(dealt) if image != -1] for dealt in permutations(grid.chosen[s].tolist())]
        )
    counts = np.array([[np.bincount(way, minlength=grid.n_candidates) for way in sample] for sample in ways])
    expected = counts.mean(axis=1).sum(axis=0)
    possible = expected > 0

    def distance(n):
        return (((n - expected) ** 2)[possible] / expected[possible]).sum()

    observed = distance(np.bincount(grid.predicted[grid.predicted >= 0], minlength=grid.n_candidates))
    dealt = [distance(sum(way)) for way in product(*counts)]
    return observed, np.mean(np.array(dealt) >= observed - 1e-9)


def biased(table, samples, seed, pull, *, orders=ORDERS):
    """Choices that go with content and chance, and to displayed positions by `pull`, Float[N]."""
    generator = np.random.default_rng(seed)
    T, N = np.shape(orders)
    gold = generator.integers(N, size=samples)
    liking = generator.normal(size=(samples, 1, N)) + np.eye(N)[gold][:, None]
    place = np.argsort(orders, axis=1)
    chosen = (liking + generator.gumbel(size=(samples, T, N)) + np.asarray(pull)[place]).argmax(axis=2)
    return table(orders, gold, chosen)


def test_by_hand(table):
    """Six samples, position 0 twice each: of 2^6 equally likely dealings only "all at 0" and "all at 1" are as far from 6 : 6."""
    found = position_test(table(TWO, [0] * 6, [[0, 1]] * 6).grid)
    assert found.statistic == pytest.approx((12 - 6) ** 2 / 6 * 2)
    assert found.p_value == pytest.approx(2 / 64, abs=0.012)


@pytest.mark.parametrize("seed", range(4))
def test_as_all_dealings_one_by_one(table, seed):
    grid = biased(table, 4, seed, [1.0, 0, 0], orders=[[0, 1, 2], [2, 0, 1], [1, 2, 0]]).grid
    chosen = table(
        [[0, 1, 2], [2, 0, 1], [1, 2, 0]], [0] * 4, np.where(np.arange(12).reshape(4, 3) == seed, -1, grid.chosen)
    ).grid
    for each in (grid, chosen):
        statistic, p = every_dealing(each)
        found = position_test(each, resamples=4999)
        assert found.statistic == pytest.approx(statistic)
        assert found.p_value == pytest.approx(p, abs=0.03)


def test_p_is_uniform_where_position_does_not_matter(table):
    p = np.array(
        [position_test(biased(table, 40, seed, [0, 0, 0, 0]).grid, resamples=99, seed=seed).p_value for seed in range(400)]
    )
    for level in (0.05, 0.2, 0.5, 0.8):
        assert abs((p <= level).mean() - level) < 3.5 * np.sqrt(level * (1 - level) / len(p))


def test_power_grows_with_bias_and_with_samples(table):
    def power(samples, pull):
        p = [position_test(biased(table, samples, s, [pull, 0, 0, 0]).grid, resamples=99, seed=s).p_value for s in range(60)]
        return np.mean(np.array(p) <= 0.05)

    assert power(40, 0.2) < power(40, 0.6) < power(160, 0.6)
    assert power(160, 0.6) > 0.95


def test_where_the_right_images_stood_is_no_preference(table):
    """The right image is always image 0, which stands at position 0 in most orders; a model that finds it is not biased."""
    generator = np.random.default_rng(3)
    chosen = np.where(generator.random((200, 5)) < 0.8, 0, generator.integers(4, size=(200, 5)))
    orders = [[0, 1, 2, 3], [0, 2, 1, 3], [0, 3, 2, 1], [0, 1, 3, 2], [1, 0, 2, 3]]
    assert position_test(table(orders, [0] * 200, chosen).grid).p_value > 0.05


def test_one_choice_under_all_orders_says_nothing(table):
    assert position_test(table(ORDERS, [0, 1], [[2] * 5, [1] * 5]).grid) == (0.0, 1.0)
    assert position_test(table(ORDERS, [0, 1], [[-1] * 5, [1] * 5]).grid) == (0.0, 1.0)
    assert position_test(table([[1, 0]], [0, 1], [[0], [1]]).grid) == (0.0, 1.0)


def test_the_same_seed_gives_the_same_p_value_and_it_is_never_zero(table):
    grid = biased(table, 30, 0, [0.5, 0, 0, 0]).grid
    assert position_test(grid, seed=7) == position_test(grid, seed=7)
    assert position_test(biased(table, 300, 0, [9, 0, 0, 0]).grid, resamples=99).p_value == 1 / 100
