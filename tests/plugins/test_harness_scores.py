"""What harnesses are given of a sample: `lad_eval.plugins.scoring`."""

import math

import numpy as np
import pytest

from lad_eval.metrics import Predictions, summarise
from lad_eval.plugins.documents import open_task
from lad_eval.plugins.scoring import SAMPLE_METRICS, position_of, rstd, score_sample

UNPARSABLE = -1


def sample(orders, gold_image=0):
    return [{"order": order, "gold": order.index(gold_image), "identifiers": ["1", "2", "3"]} for order in orders]


THREE = sample([[0, 1, 2], [2, 0, 1], [1, 2, 0]])


@pytest.mark.parametrize(
    ("positions", "acc", "consistency", "unparsable"),
    [
        ([0, 1, 2], 1.0, 1.0, 0.0),  # the right image each time
        ([1, 2, 0], 0.0, 1.0, 0.0),  # the same wrong one
        ([0, 0, 0], 1 / 3, 0.0, 0.0),  # one position
        ([0, 1, UNPARSABLE], 2 / 3, 0.0, 1 / 3),
        ([UNPARSABLE] * 3, 0.0, 0.0, 1.0),  # silence is never consistent
    ],
)
def test_a_sample_by_hand(positions, acc, consistency, unparsable):
    expected = {"acc": acc, "consistency": consistency, "flip": 1 - consistency, "unparsable": unparsable}
    assert score_sample(THREE, positions) == pytest.approx(expected)


def test_one_order_says_nothing_of_consistency():
    assert score_sample(THREE[:1], [0]) == {"acc": 1.0, "unparsable": 0.0}


def test_a_reply_names_a_position():
    assert [position_of(THREE[0], reply) for reply in ("Image 2.", "3", "1 or 2", "no idea")] == [1, 2, UNPARSABLE, UNPARSABLE]


def test_means_over_samples_are_the_figures_of_a_run_and_their_errors_are_clustered():
    samples = open_task("scenes_random_n4").samples[:40]
    generator = np.random.default_rng(0)
    answers = [generator.integers(-1, 4, len(rows)).tolist() for rows in samples]
    flat = [row for rows in samples for row in rows]
    positions = [position for of in answers for position in of]
    columns = ([row[name] for row in flat] for name in ("sample", "permutation", "gold", "order"))
    ids, permutations, gold, order = columns
    expected = summarise(Predictions(ids, permutations, gold, positions, order), resamples=10)
    scores = [score_sample(rows, of) for rows, of in zip(samples, answers, strict=True)]
    assert {key for of in scores for key in of} == set(SAMPLE_METRICS)
    assert 100 * np.mean([of["acc"] for of in scores]) == pytest.approx(expected.accuracy)
    assert 100 * np.mean([of["consistency"] for of in scores]) == pytest.approx(expected.consistency)
    assert len(positions) * np.mean([of["unparsable"] for of in scores]) == pytest.approx(expected.unparsable)
    assert 100 * rstd(gold, positions, 4) == pytest.approx(expected.rstd)
    assert math.isnan(rstd([2, 2], [2, 1], 4))
