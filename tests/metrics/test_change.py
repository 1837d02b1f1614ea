"""Changes since a baseline: by hand, against slow obvious computations, and by simulation from stored evidence."""

import itertools
import math
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from lad_eval.methods import resolve_methods
from lad_eval.metrics import UNPARSABLE, Grid, changes, noticeable_rise, noticeable_share, paired_test, rstd, rstd_swap_test
from lad_eval.metrics.change import compared_figures
from lad_eval.metrics.power import noticeable_mean
from lad_eval.regression.evidence import evidence_folder
from lad_eval.run.condition_results import read_condition_results
from tests.test_action import BASELINE

PERMS = [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2], [0, 2, 1, 3]]
PLACE = np.argsort(PERMS, axis=1)


def perfect(samples):
    gold = np.arange(samples) % 4
    return gold, np.tile(gold[:, None], (1, len(PERMS)))


def at_position(samples, position):
    return np.tile(np.array(PERMS)[:, position], (samples, 1))


def test_every_figure_by_hand(table):
    """Twelve samples, all right; then samples 0 to 5 are answered by the image at the first position of every order."""
    gold, before = perfect(12)
    now = before.copy()
    now[:6] = at_position(6, 0)
    (found,) = changes([(table(PERMS, gold, before).grid, table(PERMS, gold, now).grid)])
    accuracy, consistency, rise = found
    assert [c.figure for c in found] == ["accuracy", "consistency", "rstd"]
    right = now == gold[:, None]
    assert (accuracy.before, accuracy.now) == (100, pytest.approx(100 * right.mean()))
    assert accuracy.difference.value == pytest.approx(100 * right.mean() - 100)
    assert accuracy.difference.low < accuracy.difference.value < accuracy.difference.high < 0
    assert (consistency.before, consistency.now, consistency.drop) == (100, 50, 50)
    assert consistency.p_value == pytest.approx(2 / 2**6)
    assert consistency.p_holm == pytest.approx(3 * 2 / 2**6)
    assert consistency.largest_drop == -consistency.difference.low > 50
    assert rise.before == 0
    assert rise.now == pytest.approx(rstd(PLACE[:, gold].T, PLACE[np.arange(5), now], 4))
    assert rise.drop == rise.difference.value == pytest.approx(rise.now)
    assert rise.largest_drop == rise.difference.high


def test_only_what_can_differ_is_compared(table):
    gold, right = perfect(6)
    whole = table(PERMS, gold, right).grid
    silent = right.copy()
    silent[0, 0] = UNPARSABLE
    assert compared_figures(whole, whole) == ("accuracy", "consistency", "rstd")
    assert compared_figures(whole, table(PERMS, gold, silent).grid)[-1] == "unparsable"
    one_order = table(PERMS[:1], gold, right[:, :1]).grid
    assert compared_figures(one_order, one_order) == ("accuracy", "rstd")
    one_position = table(PERMS[:1], [2, 2], [[2], [1]]).grid
    assert compared_figures(one_position, one_position) == ("accuracy",)


def test_replies_without_an_answer_are_tested_like_the_rest(table):
    gold, right = perfect(10)
    silent = right.copy()
    silent[:7, 1] = UNPARSABLE
    (found,) = changes([(table(PERMS, gold, right).grid, table(PERMS, gold, silent).grid)])
    assert found[-1].figure == "unparsable"
    assert found[-1].drop == pytest.approx(14)
    assert found[-1].p_value == pytest.approx(2 / 2**7)


def test_the_interval_is_that_of_whole_samples_resampled_alike(table, simulate):
    """Against a bootstrap written out, with draws of its own."""
    before, now = simulate(60, 1, skill=0.7).grid, simulate(60, 2, skill=0.6).grid
    now = now._replace(gold=before.gold, perm=before.perm, predicted=np.where(now.correct, before.gold, (before.gold + 1) % 4))
    now = now._replace(chosen=np.take_along_axis(now.perm, now.predicted[:, :, None], axis=2)[:, :, 0])
    (found,) = changes([(before, now)])
    generator = np.random.default_rng(7)
    draws = []
    for _ in range(2000):
        drawn = generator.integers(60, size=60)
        draws.append(
            [
                100 * (now.correct[drawn].mean() - before.correct[drawn].mean()),
                rstd(now.gold[drawn], now.predicted[drawn], 4) - rstd(before.gold[drawn], before.predicted[drawn], 4),
            ]
        )
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    assert found[0].difference[1:] == pytest.approx((low[0], high[0]), abs=1)
    assert found[2].difference[1:] == pytest.approx((low[1], high[1]), abs=1)


def swapped(before, now, mask):
    return [
        one._replace(predicted=np.where(mask[:, None], other.predicted, one.predicted))
        for one, other in ((before, now), (now, before))
    ]


def test_the_swap_test_counts_every_swap(table):
    """Against a loop over all of them, on samples that differ and samples that do not."""
    generator = np.random.default_rng(3)
    gold, right = perfect(7)
    before = np.where(generator.random(right.shape) < 0.6, right, (right + 1) % 4)
    now = np.where(generator.random(right.shape) < 0.5, right, at_position(7, 2))
    now[6] = before[6]
    a, b = table(PERMS, gold, before).grid, table(PERMS, gold, now).grid
    statistics = []
    for mask in itertools.product([False, True], repeat=7):
        first, second = swapped(a, b, np.array(mask))
        statistics.append(abs(rstd(b.gold, second.predicted, 4) - rstd(a.gold, first.predicted, 4)))
    expected = float(np.mean(np.array(statistics) >= statistics[0] - 1e-9))
    assert rstd_swap_test(a, b) == pytest.approx(expected)
    assert rstd_swap_test(b, a) == pytest.approx(expected)
    assert rstd_swap_test(a, a) == 1.0


def test_drawn_swaps_agree_with_all_of_them(table):
    generator = np.random.default_rng(4)
    gold, right = perfect(14)
    now = np.where(generator.random(right.shape) < 0.4, at_position(14, 1), right)
    a, b = table(PERMS, gold, right).grid, table(PERMS, gold, now).grid
    every, drawn = rstd_swap_test(a, b, alpha=20 / 2**14), rstd_swap_test(a, b, alpha=20 / 8000)
    assert every * 2**14 == pytest.approx(round(every * 2**14))
    assert drawn == pytest.approx(every, abs=0.02)


def test_the_p_value_can_always_fall_below_its_level(table):
    gold, right = perfect(200)
    a, b = table(PERMS, gold, right).grid, table(PERMS, gold, at_position(200, 1)).grid
    assert rstd_swap_test(a, b, alpha=1e-4) < 1e-4


def test_samples_that_must_be_lost_by_hand():
    """At 0.05 six of six lost samples are needed: 2 / 2^6 < 0.05 < 2 / 2^5."""
    assert math.isnan(noticeable_share(5))
    share = noticeable_share(6)
    assert share**6 == pytest.approx(0.8, abs=1e-4)
    share = noticeable_share(40)
    assert stats.binom.sf(5, 40, share) == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize(("both_ways", "lost"), [(0.0, 0.12), (0.1, 0.19), (0.3, 0.27)])
def test_the_chance_is_that_of_the_exact_test(both_ways, lost):
    """By simulation with `paired_test` itself: found as often as `noticeable_share` says."""
    share = noticeable_share(60, both_ways)
    generator = np.random.default_rng(5)
    found = 0
    for _ in range(600):
        kind = generator.choice(3, size=60, p=[share + both_ways / 2, both_ways / 2, 1 - share - both_ways])
        found += paired_test(kind[:, None] != 0, kind[:, None] != 1) < 0.05
    assert found / 600 == pytest.approx(0.8, abs=0.05)
    assert share == pytest.approx(lost, abs=0.03)


def test_more_samples_notice_less_and_more_comparisons_more():
    shares = [noticeable_share(samples) for samples in (10, 40, 160, 640)]
    assert shares == sorted(shares, reverse=True)
    assert noticeable_share(40, alpha=0.05 / 87) > noticeable_share(40)
    assert noticeable_share(40, 0.2) > noticeable_share(40, 0.1) > noticeable_share(40)


def test_differences_of_one_size_are_shares_of_it():
    """Fifty samples that changed by a half, as many up as down: size 0.5 but for the one whole sample that is added."""
    differences = np.repeat([0.5, -0.5, 0.0], [25, 25, 50])
    size = (50 * 0.25 + 1) / (50 * 0.5 + 1)
    expected = size * noticeable_share(100, 50 * 0.5 / (size * 100))
    assert noticeable_mean(differences, 1.0) == pytest.approx(expected)
    assert noticeable_mean(np.zeros(100), 1.0) == noticeable_share(100)
    assert noticeable_mean(100 * differences, 100.0) == pytest.approx(100 * expected)


def test_a_rise_that_cannot_be_is_not_stated(table):
    gold, right = perfect(12)
    biased = table(PERMS, gold, np.where(PLACE[:, gold].T < 2, right, (right + 1) % 4)).grid  # RStd is the greatest there is
    assert math.isnan(noticeable_rise(biased, biased))
    fair = table(PERMS, gold, right).grid
    assert 0 < noticeable_rise(fair, fair) < 100
    few = table(PERMS, gold[:4], right[:4]).grid
    assert math.isnan(noticeable_rise(few, few))


class Evidence(NamedTuple):
    """Scores of methods by displayed position, [S, T, N] by name, with the orders [S, T, N] and the right images [S]."""

    scores: dict[str, np.ndarray]
    perm: np.ndarray
    gold: np.ndarray

    def answers(self, generator, drawn, *, noise=0.0, tilt=0.0, lost=0.0):
        """Grids by method, of samples drawn with replacement: with noise in all scores alike, a bonus for the third position, and
        a share of samples answered wrong in every order."""
        perm, gold = self.perm[drawn], self.gold[drawn]
        S, T, N = perm.shape
        bonus = noise * generator.normal(size=(S, T, N)) + tilt * np.array([0, 0, 1, 0])
        wrong = generator.random(S) < lost
        position = np.argsort(perm, axis=2)
        right, other = (
            np.take_along_axis(position, np.tile(i[:, None, None], (1, T, 1)), 2)[:, :, 0] for i in (gold, (gold + 1) % N)
        )
        for name, scores in self.scores.items():
            predicted = np.where(wrong[:, None], other, (scores[drawn] + bonus).argmax(axis=2))
            chosen = np.take_along_axis(perm, predicted[:, :, None], axis=2)[:, :, 0]
            yield name, Grid(np.arange(S).astype(str), np.arange(T), right, predicted, chosen, N, perm)

    def check(self, generator, samples, before, now):
        """The changes of all methods between two models, by (method, figure)."""
        drawn = generator.integers(len(self.gold), size=samples)
        first, second = (dict(self.answers(generator, drawn, **how)) for how in (before, now))
        found = changes([(first[name], second[name]) for name in self.scores])
        return {(name, change.figure): change for name, block in zip(self.scores, found, strict=True) for change in block}


@pytest.fixture(scope="module")
def evidence():
    """What the committed baseline's evidence makes of vanilla and LAD."""
    folder = evidence_folder(BASELINE) / "scenes_adversarial_n4"
    methods = resolve_methods(["vanilla", "lad"])
    answered = read_condition_results(folder, next(iter(methods.values())).condition, list(methods.values()))
    test, calibration = (answered.rows(set(keys)) for keys in (answered.plan_index.evaluated, answered.plan_index.calibration))
    rows = np.lexsort((*test.perm.T[::-1], test.sample_id)).reshape(-1, len(np.unique(test.perm, axis=0)))
    perm = test.perm[rows]
    scores = {n: (m.calibrate(calibration) if m.calibrates else m).predict_log_proba(test)[rows] for n, m in methods.items()}
    return Evidence(scores, perm, np.take_along_axis(perm[:, 0], test.gold_position[rows][:, :1], axis=1)[:, 0])


def failed(change):
    return change.drop > 0 and change.p_holm < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.2, 1.0])
def test_where_nothing_changed_a_check_seldom_fails(evidence, noise):
    """Two models of one distribution: the whole check, of six comparisons, raises a false alarm in at most one of twenty runs."""
    generator = np.random.default_rng(0)
    checks = [evidence.check(generator, 40, {"noise": noise}, {"noise": noise}) for _ in range(120)]
    assert any(change.p_value < 0.2 for found in checks for change in found.values())
    assert np.mean([any(map(failed, found.values())) for found in checks]) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "samples", "change"),
    [
        (("lad", "accuracy"), 150, {"lost": 0.085}),
        (("lad", "consistency"), 150, {"noise": 0.78}),
        (("lad", "rstd"), 150, {"tilt": 1.6}),
    ],
    ids=["accuracy", "consistency", "rstd"],
)
def test_a_fall_as_large_as_stated_is_found_four_times_in_five(evidence, key, samples, change):
    """The damage is such that the mean fall is about the stated one."""
    generator = np.random.default_rng(1)
    found = [evidence.check(generator, samples, {"noise": 0.3}, {"noise": 0.3, **change})[key] for _ in range(80)]
    assert np.mean([c.drop for c in found]) == pytest.approx(np.mean([c.detectable for c in found]), rel=0.15)
    assert 0.7 <= np.mean([failed(c) for c in found]) <= 0.97
