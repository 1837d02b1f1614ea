"""What the charts show: by hand, and against slow loops."""

import numpy as np
import pandas as pd
import pytest

from lad_eval.evidence.table import Evidence
from lad_eval.methods import make_method
from lad_eval.methods.conformance import random_evidence
from lad_eval.report.html import measures
from lad_eval.report.html.examples import divergences, flipping
from lad_eval.report.html.load import answers_of
from lad_eval.run.folder.schema import predictions_problem


def table(method, positions, *, log_proba=None, samples=("a", "b"), orders=("0 1 2", "2 0 1")):
    """Predictions of S samples under T orders; the right image is 0 for all."""
    rows = []
    for s, sample in enumerate(samples):
        for t, order in enumerate(orders):
            shown = [int(i) for i in order.split()]
            rows.append(
                {
                    "method": method, "sample_id": sample, "permutation": t, "order": order,
                    "gold_position": shown.index(0), "position": positions[s][t],
                    "correct": positions[s][t] == shown.index(0),
                    "log_proba": None if log_proba is None else log_proba[s][t],
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_answers_are_the_rows_of_the_table_whatever_their_order():
    told = [[np.log([0.7, 0.2, 0.1])] * 2, [np.log([0.1, 0.2, 0.7]), np.log([0.5, 0.3, 0.2])]]
    rows = table("vanilla", [[0, 0], [1, -1]], log_proba=told, samples=("b", "a"))
    answers = answers_of(rows.sample(frac=1, random_state=0).sort_values("sample_id", kind="stable", ascending=False), 3)
    assert answers.sample_id == ["b", "a"]  # in the order of asking, not of the names
    assert answers.shown.gold.tolist() == [[0, 1], [0, 1]]
    assert answers.grids["vanilla"].chosen.tolist() == [[0, 2], [1, -1]]
    assert answers.grids["vanilla"].correct.tolist() == [[True, False], [False, False]]
    assert answers.shown.gold_image.tolist() == [0, 0]
    assert answers.probability["vanilla"][1, 1] == pytest.approx([0.5, 0.3, 0.2])


def test_a_method_that_answers_in_text_has_no_probability():
    scored = table("vanilla", [[0, 0], [1, 1]], log_proba=[[[-1.0, -1.0, -1.0]] * 2] * 2)
    answers = answers_of(pd.concat([scored, table("generate", [[0, -1], [2, 2]])]), 3)
    assert answers.methods == ["vanilla", "generate"]
    assert list(answers.probability) == ["vanilla"]


def test_a_method_with_other_rows_is_left_out():
    both = pd.concat([table("vanilla", [[0, 0], [1, 1]]), table("half", [[0, 0]], samples=("a",))])
    assert answers_of(both, 3).methods == ["vanilla"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t: t.drop(columns="order"), "it lacks order"),
        (lambda t: t.iloc[:0], "holds no row"),
        (lambda t: t.iloc[:-1], "lacks an order of a sample"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "or answers one twice"),
        (lambda t: t.assign(order="a b c"), "has values of another type"),
        (lambda t: t.assign(order="0 1"), "not a permutation of 3 images"),
    ],
)
def test_a_spoilt_table_is_refused(spoil, said):
    whole = table("vanilla", [[0, 0], [1, 1]])
    assert predictions_problem(whole, 3) is None
    assert said in predictions_problem(spoil(whole), 3)


def test_gold_attention_is_the_mean_share_of_the_right_image():
    evidence = random_evidence(samples=20, n_candidates=3, depth=4, seed=1)
    found = measures.gold_attention(evidence)
    for i in range(3):
        rows = [r for r in range(len(evidence)) if evidence.gold_position[r] == i]
        for layer in range(4):
            shares = [evidence.attention[r, layer, i] / evidence.attention[r, layer].sum() for r in rows]
            assert found[i, layer] == pytest.approx(np.mean(shares))


def test_gold_attention_without_a_look_or_a_row_is_unknown():
    evidence = Evidence.from_arrays([[-1.0, -1.0]], [[[0.0, 0.0], [0.2, 0.6]]], [1])
    found = measures.gold_attention(evidence)
    assert np.isnan(found[0]).all()
    assert np.isnan(found[1, 0])
    assert found[1, 1] == pytest.approx(0.75)


def test_what_a_method_learned_is_what_it_holds():
    calibration = random_evidence(samples=4, n_candidates=3, depth=12, seed=2)
    lad = make_method("lad", top_k=1).calibrate(calibration)
    found = measures.learn(measures.made("lad", {"top_k": 1}), calibration)
    assert found.bias == pytest.approx(np.exp(lad.log_bias_))
    assert found.gain == pytest.approx(np.exp(lad.log_gain_))
    assert found.attention_prior == pytest.approx(np.exp(lad.log_attention_prior_))
    assert (found.prior, found.layers) == (None, (7, 11))
    prior = measures.learn(make_method("pride"), calibration).prior
    assert prior.sum() == pytest.approx(1)
    # Lists are what JSON makes of tuples.
    assert measures.learn(measures.made("lad", {"layers": [2, 3]}), calibration).layers == (2, 3)
    over = measures.learn(make_method("majority+lad", top_k=1), calibration)
    assert over.bias == pytest.approx(found.bias)


def test_layers_chosen_are_shares_of_rows():
    evidence = Evidence.from_arrays([[-1.0, -1.0]] * 2, [[[0.1, 0.1], [0.3, 0.3]], [[0.4, 0.1], [0.1, 0.1]]], [0, 1])
    assert measures.layers_chosen(make_method("lad", top_k=1, layers="all"), evidence).tolist() == [0.5, 0.5]


def test_divergences_come_surest_first_one_a_sample():
    def logs(*values):
        return np.log(values)

    # Sample a: wrong at .6 and .9; sample b: right, then wrong at .7.
    vanilla = table(
        "vanilla", [[1, 0], [0, 2]],
        log_proba=[[logs(0.3, 0.6, 0.1), logs(0.9, 0.05, 0.05)], [logs(0.8, 0.1, 0.1), logs(0.2, 0.1, 0.7)]],
    )  # fmt: skip
    attention = table("purified-attention", [[0, 1], [0, 1]])
    answers = answers_of(pd.concat([vanilla, attention]), 3)
    found = divergences(answers)
    assert (found.attention, found.rows, found.of) == ("purified-attention", 3, 4)
    assert found.samples.tolist() == [0, 1]
    assert found.order.tolist() == [1, 1]
    assert flipping(answers, "vanilla").tolist() == [0, 1]
    assert flipping(answers, "purified-attention").tolist() == []
    assert divergences(answers_of(vanilla, 3)) is None
