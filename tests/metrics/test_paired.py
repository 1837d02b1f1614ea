import numpy as np
import pytest

from lad_eval.errors import UnknownNameError
from lad_eval.metrics import PredictionsError, accuracy, compare, consistency, holm, mcnemar, outcomes, rstd

PERMS = [[0, 1], [1, 0]]
GOLD = [0, 1] * 10


def answers(table, right_samples, gold=GOLD):
    gold = np.asarray(gold)
    right = np.arange(len(gold)) < right_samples
    return table(PERMS, gold, np.repeat(np.where(right, gold, 1 - gold)[:, None], 2, axis=1))


def test_mcnemar_by_hand():
    first = np.array([True] * 6 + [False] * 3)
    second = np.array([True] + [False] * 5 + [True] + [False] * 2)
    assert mcnemar(first, second) == (5, 1, pytest.approx(2 * (1 + 6) / 2**6))  # of 6 discordant samples 1 or fewer
    assert mcnemar(second, first) == (1, 5, pytest.approx(14 / 64))
    assert mcnemar(first, first) == (0, 0, 1.0)
    assert mcnemar(np.array([True, False]), np.array([False, True])).p_value == 1.0


def test_holm_by_hand():
    """Sorted .01 .02 .03 .6: times 4, 3, 2, 1 gives .04 .06 .06 .6; the third may not fall below the second."""
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert holm([0.02, 0.02, 0.021]) == pytest.approx([0.06, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert holm([]).tolist() == []


def test_outcomes():
    correct = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]], dtype=bool)
    assert outcomes(correct).tolist() == [True, False, False]
    assert outcomes(correct, "majority").tolist() == [True, True, False]


def test_compare(table):
    tables = {"good": answers(table, 18), "fair": answers(table, 12), "poor": answers(table, 10)}
    good_fair, good_poor, fair_poor = compare(tables)
    assert [(c.first, c.second) for c in (good_fair, good_poor, fair_poor)] == [
        ("good", "fair"),
        ("good", "poor"),
        ("fair", "poor"),
    ]
    assert good_fair.accuracy.value == pytest.approx(30)
    assert good_fair.accuracy.low < 30 < good_fair.accuracy.high
    assert (good_fair.only_first, good_fair.only_second) == (6, 0)
    assert good_fair.p_value == pytest.approx(2 / 2**6)
    assert good_poor.p_value == pytest.approx(2 / 2**8)
    assert fair_poor.p_value == pytest.approx(2 / 2**2)
    assert [c.p_holm for c in (good_fair, good_poor, fair_poor)] == pytest.approx([2 * 2 / 64, 3 * 2 / 256, 0.5])


def test_compare_against_one(table):
    tables = {"good": answers(table, 18), "fair": answers(table, 12), "poor": answers(table, 10)}
    found = compare(tables, against="fair")
    assert [(c.first, c.second) for c in found] == [("good", "fair"), ("poor", "fair")]
    assert [c.p_holm for c in found] == pytest.approx([2 * 2 / 64, 0.5])
    assert found[1].accuracy.value == pytest.approx(-10)


def test_differences_are_paired(simulate):
    """Two tables that agree but for a few samples differ by far less than either varies; their figures are their differences."""
    first, second = simulate(200, 1), simulate(200, 1, unparsable=0.02)
    (found,) = compare({"first": first, "second": second})
    a, b = first.grid, second.grid
    assert found.accuracy.value == pytest.approx(accuracy(a.correct) - accuracy(b.correct))
    assert found.rstd.value == pytest.approx(rstd(a.gold, a.predicted, 4) - rstd(b.gold, b.predicted, 4))
    assert found.consistency.value == pytest.approx(consistency(a.chosen) - consistency(b.chosen))
    assert 0 < found.accuracy.low < found.accuracy.value < found.accuracy.high < 5
    assert found.consistency.high - found.consistency.low < 10
    assert found.only_second == 0


def test_a_method_does_not_differ_from_itself(simulate):
    (found,) = compare({"a": simulate(30, 1), "b": simulate(30, 1)})
    assert found.accuracy == found.rstd == found.consistency == (0, 0, 0)
    assert found.p_value == found.p_holm == 1


def test_different_requests_cannot_be_compared(table):
    a = answers(table, 3)
    for other in (
        answers(table, 3, [1, 0] * 10),
        answers(table, 3, [0, 1] * 9),
        table(PERMS, GOLD, np.zeros((20, 2), int), prefix="x"),
    ):
        with pytest.raises(PredictionsError, match="a and b cannot be compared: they answered different samples or orders"):
            compare({"a": a, "b": other})


def test_unknown_reference(table):
    with pytest.raises(UnknownNameError, match=r"Unknown method 'vanila'\. Did you mean 'vanilla'\?"):
        compare({"vanilla": answers(table, 3)}, against="vanila")


def test_nothing_to_compare(table):
    assert compare({"a": answers(table, 3)}) == []
    assert compare({}) == []
