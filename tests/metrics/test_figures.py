"""Every figure on one small table, worked by hand.

Two images, two orders (01 and 10), four samples; chosen images, - for an unparsable reply:

    sample  gold  under 01 (position)   under 10 (position)   right
    s0      0     0 (0)                 0 (1)                 yes yes
    s1      1     0 (0)                 1 (0)                 no  yes
    s2      0     1 (1)                 1 (0)                 no  no
    s3      1     - (-)                 1 (0)                 no  yes
"""

import numpy as np
import pytest

import lad_eval.metrics.figures as figures
from lad_eval.metrics import (
    accuracy,
    accuracy_std,
    all_correct,
    chi_square,
    consistency,
    divergence,
    recall,
    rstd,
    summarise,
    unparsable,
)


@pytest.fixture(scope="module")
def grid(table):
    return table([[0, 1], [1, 0]], [0, 1, 0, 1], [[0, 0], [0, 1], [1, 1], [-1, 1]]).grid


def test_accuracy(grid):
    assert accuracy(grid.correct) == 50  # 4 of 8


def test_accuracy_std(grid):
    """25 % under 01 and 75 % under 10: deviations of 25 from 50, sqrt((25^2 + 25^2) / 1)."""
    assert accuracy_std(grid.correct) == pytest.approx(np.sqrt(1250))
    assert accuracy_std(grid.correct[:, :1]) == 0


def test_recall_and_rstd(grid):
    """Gold at 0: s0 and s2 under 01, s1 and s3 under 10, right but for s2: 3/4. Gold at 1: s1, s3, s0, s2; right s0 only: 1/4."""
    assert recall(grid.gold, grid.predicted, 2).tolist() == [75, 25]
    assert rstd(grid.gold, grid.predicted, 2) == pytest.approx(np.sqrt(1250))


def test_rstd_leaves_positions_without_an_answer_out():
    gold, predicted = np.array([[0, 0, 2, 2]]), np.array([[0, 0, 2, 1]])  # recalls 100, none, 50
    assert recall(gold, predicted, 3) == pytest.approx([100, np.nan, 50], nan_ok=True)
    assert rstd(gold, predicted, 3) == pytest.approx(np.sqrt(1250))
    assert np.isnan(rstd(gold[:, :2], predicted[:, :2], 3))


def test_consistency_counts_images_not_positions(grid):
    """s0 and s2 choose one image throughout, right or wrong; s1 answers position 0 twice, which are two images."""
    assert consistency(grid.chosen) == 50


def test_unparsable_replies_are_never_consistent():
    assert consistency(np.array([[-1, -1], [2, 2]])) == 50
    assert consistency(np.array([[1, 1, 1, 0], [0, 1, 1, 1]])) == 0


def test_all_correct(grid):
    assert all_correct(grid.correct) == 25  # s0


def test_unparsable(grid):
    assert unparsable(grid.predicted) == 1


def test_chi_square(grid):
    """Answers: position 0 five times, position 1 twice, 3.5 expected: 2 (1.5^2) / 3.5 = 9/7."""
    statistic, p = chi_square(grid.predicted, 2)
    assert statistic == pytest.approx(9 / 7)
    assert p == pytest.approx(0.25684, abs=1e-5)  # of a chi-square of one degree of freedom
    assert chi_square(np.repeat([0, 1, 2], [20, 10, 0]), 3) == pytest.approx((20, np.exp(-10)))  # two degrees: exp(-x / 2)
    assert np.isnan(chi_square(np.array([-1, -1]), 3)).all()


def test_divergence():
    assert divergence(96.14, 67.52) == pytest.approx(28.62)


def test_summary_holds_the_same_figures(table):
    summary = summarise(table([[0, 1], [1, 0]], [0, 1, 0, 1], [[0, 0], [0, 1], [1, 1], [-1, 1]]))
    expected = {"accuracy": 50, "consistency": 50, "all_correct": 25, "unparsable": 1, "samples": 4, "permutations": 2}
    assert {name: getattr(summary, name) for name in expected} == expected
    assert summary.recall == (75, 25)
    assert (summary.accuracy_std, summary.rstd) == pytest.approx((np.sqrt(1250), np.sqrt(1250)))
    assert (summary.chi2, summary.chi2_p) == pytest.approx((9 / 7, 0.25684), abs=1e-5)


def test_confusion_counts_positions_and_silence():
    counts = figures.confusion(np.array([[0, 1], [0, 2]]), np.array([[0, 2], [-1, 2]]), 3)
    assert counts.tolist() == [[1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 0]]
    assert figures.row_shares(counts)[0].tolist() == [50, 0, 0, 50]
    assert np.isnan(figures.row_shares(np.zeros((2, 3), dtype=np.int64))).all()
