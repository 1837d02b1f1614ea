"""The exact paired test and the detectable difference: by hand, against scipy and McNemar, by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from lad_eval.metrics import (
    can_differ,
    detectable,
    detectable_between,
    detectable_in,
    gains,
    mcnemar,
    paired_test,
    significance,
)


def right(*orders):
    """Bool[S, T] from texts such as "110"."""
    return np.array([[c == "1" for c in text] for text in orders])


def correlated(generator, samples, difference, orders=5):
    """Two methods on the same samples, some hard and some easy, whose true accuracies differ by `difference` (a share)."""
    ease = np.where(generator.random((samples, 1)) < 0.5, 0.3, 0.7)
    return (
        generator.random((samples, orders)) < ease + difference / 2,
        generator.random((samples, orders)) < ease - difference / 2,
    )


def test_by_hand():
    """Differences +2, +1, +1: sums with signs 4 2 2 0 0 -2 -2 -4, so 2 of 8 are as far from 0 as 4."""
    first, second = right("11", "11", "10", "11"), right("00", "10", "00", "11")
    assert gains(first, second).tolist() == [1.0, 0.5, 0.5, 0.0]
    assert paired_test(first, second) == pytest.approx(2 / 8)
    assert paired_test(right("11", "10"), right("00", "11")) == pytest.approx(
        1.0
    )  # +2, -1: 1 3 -3 -1 are all at least as far as 1


@given(st.integers(1, 30).flatmap(lambda s: st.tuples(*[arrays(bool, (s, 1))] * 2)))
def test_with_one_order_it_is_mcnemars_test(pair):
    assert paired_test(*pair) == pytest.approx(mcnemar(pair[0][:, 0], pair[1][:, 0]).p_value)


@given(st.integers(1, 8).flatmap(lambda s: st.tuples(*[arrays(bool, (s, 3))] * 2)))
def test_swapping_the_methods_changes_nothing(pair):
    assert paired_test(*pair) == pytest.approx(paired_test(pair[1], pair[0]))
    assert paired_test(pair[0], pair[0]) == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_as_scipys_enumeration_of_all_signs(seed):
    first, second = correlated(np.random.default_rng(seed), 11, 0.3)
    found = stats.permutation_test(
        (first.sum(axis=1), second.sum(axis=1)),
        lambda a, b, axis: (a - b).sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert paired_test(first, second) == pytest.approx(found.pvalue)


def test_detectable_by_hand():
    """(1.95996 + 0.84162) * 50 / sqrt(400) = 7.0040."""
    assert detectable(50.0, 400) == pytest.approx(7.0040, abs=1e-3)
    assert detectable(50.0, 1600) == pytest.approx(detectable(50.0, 400) / 2)
    assert detectable(50.0, 400, alpha=0.01, power=0.9) == pytest.approx((2.57583 + 1.28155) * 2.5, abs=1e-3)


def test_agreement_everywhere_says_nothing_of_the_spread():
    assert math.isnan(detectable_between(right("11", "00"), right("11", "00")))
    assert math.isnan(detectable_between(right("11"), right("01")))


def test_a_difference_of_the_detectable_size_is_found_as_often_as_promised():
    generator = np.random.default_rng(0)
    samples, runs = 150, 600
    least = np.mean([detectable_between(*correlated(generator, samples, 0.0)) for _ in range(20)])

    def found(difference):
        return np.mean([paired_test(*correlated(generator, samples, difference)) < 0.05 for _ in range(runs)])

    assert found(least / 100) == pytest.approx(0.8, abs=0.06)
    assert found(0.0) < 0.05 + 0.03


def test_standings_by_hand():
    """b is best. Against it a differs on 6 samples, one way: p = 2 / 2^6; c on 2 of them: p = 1 / 2; Holm: * 2, * 1."""
    b = np.ones((8, 1), dtype=bool)
    a, c = b.copy(), b.copy()
    a[:6], c[:2] = False, False
    found = significance({"a": a, "b": b, "c": c})
    assert found["a"] == (False, pytest.approx(2 / 64), pytest.approx(4 / 64))
    assert found["b"] == (True, 1.0, 1.0)
    assert found["c"] == (False, pytest.approx(0.5), pytest.approx(0.5))
    assert [name for name, significance in found.items() if significance.tied] == ["a", "c"]
    assert not significance({"a": a, "b": b})["a"].tied
    assert significance({}) == {}


def test_equally_good_rows_are_marked_alike():
    found = significance({"x": right("10", "01"), "y": right("01", "10")})
    assert (found["x"].best, found["x"].tied, found["y"].best, found["y"].tied) == (True, False, True, False)


def test_equal_rows_do_not_spare_the_others_their_correction():
    """c differs from the best on 6 samples: p = 2 / 2^6, times 2 for the two rows that are not the first best."""
    a = np.ones((8, 1), dtype=bool)
    c = a.copy()
    c[:6] = False
    assert significance({"a": a, "b": a.copy(), "c": c})["c"].p_holm == pytest.approx(4 / 64)


def test_what_a_table_could_have_shown():
    assert not can_differ(6, 3)  # 2 * 2 / 2**6 = 0.0625
    assert can_differ(7, 3)
    best, near = right(*["11"] * 40), right("10", *["11"] * 39)
    worse = right(*["00"] * 40)
    assert detectable_in({"best": best, "near": near, "worse": worse}) == pytest.approx(detectable_between(best, near))
    assert math.isnan(detectable_in({"best": best, "same": best, "worse": worse}))
