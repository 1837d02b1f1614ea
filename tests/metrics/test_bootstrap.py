import time

import numpy as np
import pytest

from lad_eval.metrics import (
    accuracy,
    all_correct,
    clustered_means,
    consistency,
    recall,
    recall_intervals,
    resampled_means,
    rstd,
    summarise,
)
from lad_eval.metrics.bootstrap import figures, interval, sample_sums


@pytest.mark.parametrize("n", [2, 4, 7])
def test_figures_of_the_data_equal_the_plain_functions(simulate, n):
    grid = simulate(60, 1, n=n, unparsable=0.1).grid
    found = figures(sample_sums(grid).mean(axis=0))
    plain = accuracy(grid.correct), rstd(grid.gold, grid.predicted, n), consistency(grid.chosen), all_correct(grid.correct)
    assert tuple(map(float, found)) == pytest.approx(plain)


def test_resamples_equal_a_slow_bootstrap(simulate):
    """Each resample draws whole samples; the same draws, taken one by one, give the same figures."""
    grid = simulate(30, 2, unparsable=0.05).grid
    draws = figures(resampled_means(sample_sums(grid), resamples=50, seed=7))
    generator = np.random.default_rng(7)
    for b, drawn in enumerate(generator.integers(30, size=(50, 30))):
        gold, predicted, chosen = grid.gold[drawn], grid.predicted[drawn], grid.chosen[drawn]
        assert draws.accuracy[b] == pytest.approx(accuracy(gold == predicted))
        assert draws.rstd[b] == pytest.approx(rstd(gold, predicted, 4))
        assert draws.consistency[b] == pytest.approx(consistency(chosen))
        assert draws.all_correct[b] == pytest.approx(all_correct(gold == predicted))


def test_blocks_do_not_change_the_draws(monkeypatch):
    sums = np.random.default_rng(0).random((40, 3))
    whole = resampled_means(sums, resamples=100, seed=3)
    monkeypatch.setattr("lad_eval.metrics.bootstrap._CELLS", 7 * 40)
    np.testing.assert_allclose(resampled_means(sums, resamples=100, seed=3), whole)


def test_same_seed_same_interval(simulate):
    predictions = simulate(50, 3)
    assert summarise(predictions, seed=1) == summarise(predictions, seed=1)
    assert summarise(predictions, seed=1) != summarise(predictions, seed=2)


def test_interval_is_the_middle_95_percent():
    assert interval(np.arange(1001.0)) == (25, 975)
    assert interval(np.append(np.arange(1001.0), np.nan)) == (25, 975)
    assert np.isnan(interval(np.full(3, np.nan))).all()


def test_summary_pairs_figures_with_their_intervals(simulate):
    summary = summarise(simulate(200, 5, n=2, skill=0.5, spread=0.45, unparsable=0.02))
    for name in ("accuracy", "rstd", "consistency", "all_correct"):
        low, value, high = (getattr(summary, name + end) for end in ("_low", "", "_high"))
        assert low < value < high
        assert high - low < 25
    assert summary.consistency_low != summary.all_correct_low


def test_intervals_cover_the_truth_about_95_times_in_100(simulate):
    """Rows of a sample go together here: an interval over rows instead of samples would be too narrow and cover about 80."""
    covered = []
    for seed in range(300):
        summary = summarise(simulate(80, seed, skill=0.6, spread=0.4), resamples=400, seed=seed)
        covered.append(summary.accuracy_low <= 60 <= summary.accuracy_high)
    assert 0.90 <= np.mean(covered) <= 0.98


def test_one_sample_has_an_interval_of_no_width(simulate):
    summary = summarise(simulate(1, 0))
    assert summary.accuracy == summary.accuracy_low == summary.accuracy_high


def test_twenty_thousand_rows_take_seconds(simulate):
    predictions = simulate(4000, 0, n=12)
    start = time.perf_counter()
    summarise(predictions)
    assert time.perf_counter() - start < 10


def test_intervals_of_recall_equal_a_slow_bootstrap(simulate):
    grid = simulate(25, 3, unparsable=0.05).grid
    low, high = recall_intervals(grid.gold, grid.predicted, 4, resamples=80, seed=7)
    generator = np.random.default_rng(7)
    draws = np.array([recall(grid.gold[d], grid.predicted[d], 4) for d in generator.integers(25, size=(80, 25))])
    np.testing.assert_allclose(low, np.nanquantile(draws, 0.025, axis=0))
    np.testing.assert_allclose(high, np.nanquantile(draws, 0.975, axis=0))


def test_a_recall_of_none_or_all_keeps_an_interval():
    """Clopper-Pearson of 0 of 20 samples, 1 - 0.025 ** (1 / 20), and 12 of 12, 0.025 ** (1 / 12); position 2 never held it."""
    gold = np.array([[0, 0]] * 8 + [[0, 1]] * 12)
    predicted = np.where(gold == 0, 2, gold)
    low, high = recall_intervals(gold, predicted, 3)
    assert (low[0], high[0]) == (0.0, pytest.approx(16.84, abs=0.01))
    assert (low[1], high[1]) == (pytest.approx(73.54, abs=0.01), 100.0)
    assert np.isnan([low[2], high[2]]).all()


def test_clusters_are_resampled_whole():
    """Twins that always agree are one observation: their interval is that of half as many samples."""
    sums = np.random.default_rng(0).random((30, 2))
    once = resampled_means(sums, 500, 1)
    twins = clustered_means(np.repeat(sums, 2, axis=0), [f"{i // 2:02}" for i in range(60)], 500, 1)
    np.testing.assert_allclose(twins, once)
    assert (clustered_means(sums, None, 500, 1) == once).all()


def test_each_mean_is_over_the_samples_of_its_resample():
    """One cluster of three samples with 1 and one of a single 0: both, one or the other are drawn."""
    means = clustered_means(np.array([[1.0], [1.0], [1.0], [0.0]]), ["a", "a", "a", "b"], 200, 0)
    assert set(means[:, 0].round(6)) == {0.0, 0.75, 1.0}


def test_a_summary_of_twins_is_as_sure_as_that_of_one_of_each(simulate):
    once = simulate(40, 3, unparsable=0.1)
    ids = np.concatenate([once.sample_id, np.char.add(once.sample_id, "b")])
    columns = ("permutation", "gold_position", "predicted", "perm")
    both = type(once)(ids, *(np.concatenate([getattr(once, name)] * 2) for name in columns))
    twins = summarise(both, resamples=200, clusters={sample: sample.rstrip("b") for sample in ids.tolist()})
    single = summarise(once, resamples=200)
    for name in ("accuracy_low", "accuracy_high", "consistency_low", "flip_high", "osi_low", "rstd_high"):
        assert getattr(twins, name) == pytest.approx(getattr(single, name))
    assert summarise(both, resamples=200).accuracy_low > single.accuracy_low  # taken as 80 samples
