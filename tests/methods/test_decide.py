"""The one call behind every run: evidence or replies, one displayed order or several. By hand, at N = 3 and 4."""

from dataclasses import replace

import numpy as np
import pytest

from lad_eval.errors import EvidenceError
from lad_eval.evidence.replies import UNKNOWN_PASSES, Replies
from lad_eval.evidence.table import Evidence
from lad_eval.methods import make_method
from lad_eval.run.decide import PlanIndex, decide
from lad_eval.run.results import figures_of
from lad_eval.tasks.request import Permutation

LETTERS = ("A", "B", "C", "D")


def written(orders, texts, passes):
    """Replies to one sample under several displayed orders; image 0 is the right one."""
    n = len(orders[0])
    return Replies.of(
        [
            {
                "key": f"k{row}",
                "sample_id": "s",
                "perm": list(order),
                "gold_position": order.index(0),
                "identifiers": LETTERS[:n],
                "texts": [text],
                "forward_passes": count,
                "seconds": 0.0,
            }
            for row, (order, text, count) in enumerate(zip(orders, texts, passes, strict=True))
        ],
        {},
    )


ORDERS = [(2, 0, 1, 3), (1, 2, 3, 0), (1, 3, 0, 2), (0, 2, 3, 1)]


def test_a_majority_of_replies_votes_for_images_and_answers_with_a_position():
    # The replies name image 2, 2, 1 and 2. It stands at 0 in the first order and at 1 in the second; whoever took the
    # permutation for its inverse would answer 1 and 3.
    replies = written(ORDERS, ["A", "B", "A", "B"], [1, 2, 3, 4])
    answers = make_method("majority+generate").decide(replies, np.asarray([[0, 1, 2, 3], [1, 2, 3, 0]]))
    assert answers.position.tolist() == [0, 1]
    assert answers.log_proba is None
    assert answers.passes.tolist() == [10.0, 10.0]


def test_a_majority_without_a_vote_is_no_answer():
    replies = written(ORDERS, ["none", "B or C", "", "I cannot tell"], [1, 1, 1, 1])
    assert make_method("majority+generate").decide(replies, np.asarray([[0, 1, 2, 3]])).position.tolist() == [-1]


def test_a_reply_costs_its_own_passes_and_none_that_are_not_known():
    replies = written(ORDERS[:3], ["D", "A", "B"], [7, UNKNOWN_PASSES, 5])
    answers = make_method("generate").decide(replies, np.asarray([[2], [0], [1]]))
    assert answers.position.tolist() == [1, 3, 0]
    np.testing.assert_array_equal(answers.passes, [5.0, 7.0, np.nan])


def looked(orders, log_probs, passes):
    return Evidence(
        key=np.asarray([f"k{row}" for row in range(len(orders))]),
        sample_id=np.asarray(["s"] * len(orders)),
        split=np.asarray(["test"] * len(orders)),
        perm=np.asarray(orders),
        gold_position=np.asarray([order.index(0) for order in orders]),
        log_probs=np.asarray(log_probs, dtype=np.float64),
        forward_passes=np.asarray(passes),
        attention=None,
        attention_delimited=None,
        seconds=np.zeros(len(orders)),
    )


def test_an_average_over_orders_is_one_of_images():
    # By image, order by order: (.1, .2, .7), (.2, .6, .2), (.5, .2, .3); the mean of the logarithms is greatest for image 2.
    orders = [order.order for order in Permutation((1, 2, 0)).cyclic_shifts()]
    by_image = np.log([[0.1, 0.2, 0.7], [0.2, 0.6, 0.2], [0.5, 0.2, 0.3]])
    evidence = looked(orders, [row[list(order)] for row, order in zip(by_image, orders, strict=True)], [2, 3, 4])
    answers = make_method("permutation-average").decide(evidence, np.asarray([[0, 1, 2], [1, 2, 0], [2, 0, 1]]))
    assert answers.position.tolist() == [order.index(2) for order in orders]
    assert answers.passes.tolist() == [9.0, 9.0, 9.0]  # decoder passes, not rows
    mean = np.exp(by_image.mean(axis=0))
    np.testing.assert_allclose(np.exp(answers.log_proba[0]), (mean / mean.sum())[list(orders[0])])


def test_a_plain_method_answers_the_row_that_is_asked_first():
    evidence = looked([(0, 1, 2), (2, 0, 1)], np.log([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]), [1, 4])
    answers = make_method("vanilla").decide(evidence, np.asarray([[1], [0]]))
    assert answers.position.tolist() == [0, 1]
    assert answers.passes.tolist() == [4.0, 1.0]


@pytest.mark.parametrize(("name", "text"), [("generate", "from replies"), ("self-consistency", "from replies")])
def test_evidence_is_refused_by_what_reads_replies(name, text):
    with pytest.raises(EvidenceError, match=text):
        make_method(name).decide(looked([(0, 1, 2)], [[0.0, 0.0, 0.0]], [1]), np.asarray([[0]]))


def test_replies_are_refused_by_what_reads_evidence():
    replies = written(ORDERS, ["A"] * 4, [1] * 4)
    for name in ("vanilla", "permutation-average", "pride-original"):
        with pytest.raises(EvidenceError, match="decides from evidence, not from replies"):
            make_method(name).decide(replies, np.asarray([[0, 1, 2, 3]]))


def test_drawn_replies_are_a_control_of_noise_within_an_order():
    # Images (0, 0) in the first order, (0, 1) in the second: one of two pairs within an order differs, two of four across.
    replies = written([(0, 1, 2), (1, 2, 0)], ["A", "C"], [2, 2])
    replies = replace(replies, texts=(("A", "A"), ("C", "A")))
    method = make_method("self-consistency", samples=2)
    plan_index = PlanIndex(evaluated=("k0", "k1"), permutation_index=(0, 1), cyclic=(), calibration=())
    decision = decide(replies, plan_index, method)
    assert decision.answers.draws.tolist() == [[0, 2], [0, 0]]
    control = figures_of(decision, plan_index, seed=0)["same_order"]
    assert (control["repeats"], control["of"]) == (2, "draws")
    assert [control[name]["value"] for name in ("d_same", "d_cross", "delta")] == [50.0, 50.0, 0.0]
    alone = decide(replies, plan_index, make_method("cot"))
    control = figures_of(alone, plan_index, seed=0)["same_order"]
    assert control["repeats"] == 1
    assert [control[name]["value"] for name in ("d_same", "d_cross", "delta")] == [None, 0.0, None]
