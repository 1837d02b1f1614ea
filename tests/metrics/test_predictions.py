import numpy as np
import pytest

from lad_eval.evidence.table import Evidence
from lad_eval.metrics import Predictions, PredictionsError

ROWS = {
    "sample_id": np.array(["b", "a", "b", "a"]),
    "permutation": np.array([1, 0, 0, 1]),
    "gold_position": np.array([0, 0, 2, 1]),
    "predicted": np.array([1, 0, 2, -1]),
    "perm": np.array([[2, 0, 1], [0, 1, 2], [0, 1, 2], [2, 0, 1]]),
}


def test_rows_are_sorted_into_a_grid_of_samples_and_permutations():
    grid = Predictions(**ROWS).grid
    assert grid.sample_id.tolist() == ["a", "b"]
    assert grid.permutation.tolist() == [0, 1]
    assert grid.gold.tolist() == [[0, 1], [2, 0]]
    assert grid.predicted.tolist() == [[0, -1], [2, 1]]
    assert grid.chosen.tolist() == [[0, -1], [2, 0]]
    assert grid.correct.tolist() == [[True, False], [True, False]]


def test_a_cell_is_the_row_of_a_sample_and_a_permutation():
    answers = Predictions(**ROWS)
    assert answers.cells.tolist() == [[1, 3], [2, 0]]
    assert answers.grid.gold_image.tolist() == [0, 2]


def test_some_samples_of_a_grid_come_in_the_order_asked_for():
    grid = Predictions(**ROWS).grid.only(["b", "unknown", "a"])
    assert grid.sample_id.tolist() == ["b", "a"]
    assert (grid.gold.tolist(), grid.chosen.tolist()) == ([[2, 0], [0, 1]], [[2, 0], [0, -1]])
    assert Predictions(**ROWS).only(["a"]).grid.predicted.tolist() == [[0, -1]]


def test_permutations_that_are_given_number_the_orders():
    evidence = Evidence.from_arrays(np.zeros((4, 3)), None, ROWS["gold_position"], ROWS["sample_id"], perm=ROWS["perm"])
    assert Predictions.of(evidence, ROWS["predicted"], [7, 3, 3, 7]).grid.permutation.tolist() == [3, 7]


def test_of_evidence_numbers_the_orders():
    evidence = Evidence.from_arrays(np.zeros((4, 3)), None, ROWS["gold_position"], ROWS["sample_id"], perm=ROWS["perm"])
    assert Predictions.of(evidence, ROWS["predicted"]).permutation.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {name: value[:3] for name, value in ROWS.items()},
            "once under each of the 2 permutations: 1 of 2 samples are not, such as 'a'",
        ),
        ({"permutation": np.array([1, 0, 1, 1])}, "1 of 2 samples are not, such as 'b'"),
        ({name: value[:0] for name, value in ROWS.items()}, "no predictions"),
        ({"predicted": np.array([1, 0, 2, 3])}, r"predicted must lie in -1\.\.2"),
        ({"predicted": np.array([1, 0, 2, -2])}, r"predicted must lie in -1\.\.2"),
        ({"gold_position": np.array([0, 0, 2, -1])}, r"gold_position must lie in 0\.\.2"),
        ({"gold_position": np.array([0, 0, 2, 2])}, "right image of 'a' differs between its permutations"),
        ({"predicted": np.array([1, 0, 2])}, r"predicted must have shape \[4\] as sample_id has 4 rows, not \[3\]"),
        ({"predicted": np.array([1.0, 0, 2, np.nan])}, "predicted must hold whole numbers, not float64"),
        ({"perm": np.zeros((4, 3), dtype=int)}, "every row of perm must be a permutation"),
        ({"perm": np.zeros(4, dtype=int)}, r"perm must have shape \[4, N\] with N >= 2, not \[4\]"),
    ],
)
def test_faulty_tables_are_refused(change, message):
    with pytest.raises(PredictionsError, match=message):
        Predictions(**{**ROWS, **change})
