import math

import numpy as np
import pytest

from lad_eval.errors import EvidenceError
from lad_eval.evidence.table import Evidence
from lad_eval.methods import FewLayersWarning, PurifiedAttention, RawAttention, make_method
from lad_eval.methods.readout import layer_range, log_attention, purified_attention, strongest_layers

FLAT = Evidence.from_arrays(np.zeros((2, 2)), np.full((2, 2, 2), 0.1), [0, 1], ["c", "c"])


def one(*layers, depth=None):
    return Evidence.from_arrays(np.zeros((1, 2)), np.asarray([layers], dtype=float), [0], ["t"])


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (36, (21, 35)),
        (28, (21, 27)),
        (24, (21, 23)),
        (80, (21, 35)),
        (23, (14, 22)),
        (12, (7, 11)),
        (6, (4, 5)),
        (2, (1, 1)),
        (1, (0, 0)),
    ],
)
def test_upper_layers(depth, expected):
    assert layer_range("upper", depth) == expected


def test_numbered_layers_must_exist():
    assert layer_range("all", 12) == (0, 11)
    assert layer_range((3, 5), 6) == (3, 5)
    with pytest.raises(EvidenceError, match="layers 3-6 reach past the last layer: this evidence has layers 0-5"):
        layer_range((3, 6), 6)


def test_the_layers_that_look_at_images_most_are_chosen_row_by_row():
    attention = np.zeros((2, 5, 2))
    attention[0, :, 0] = [9, 1, 4, 3, 2]
    attention[1, :, 1] = [9, 5, 1, 1, 1]
    assert strongest_layers(attention, (1, 4), 2).tolist() == [[2, 3], [1, 4]], "of equal layers the deeper"
    assert strongest_layers(attention, "all", 1).tolist() == [[0], [0]]


def test_too_few_layers_are_said():
    with pytest.warns(
        FewLayersWarning,
        match=r"^raw-attention: top_k = 2, but its range holds only 1 layer \(1-1\).*choose a smaller top_k, or layers = all",
    ):
        RawAttention().predict(FLAT)


def test_raw_attention_is_the_share_of_the_mean():
    proba = np.exp(RawAttention(layers="all").predict_log_proba(one([0.9, 0.1], [0.1, 0.1])))
    assert proba[0] == pytest.approx([5 / 6, 1 / 6])


def test_attention_sorting_is_the_sum_over_all_layers():
    sorting = make_method("attention-sorting")
    row = Evidence.from_arrays(
        np.zeros((1, 2)), [[[0.2, 0.3], [0.4, 0.1]]], [0], ["t"], attention_delimited=[[[0.0, 0.9], [0.4, 0.1]]]
    )
    assert np.exp(sorting.predict_log_proba(row))[0] == pytest.approx([0.6, 0.4])
    attention = np.random.default_rng(0).random((40, 7, 5))
    rows = Evidence.from_arrays(np.zeros((40, 5)), attention, np.zeros(40))
    assert sorting.predict(rows).tolist() == attention.sum(axis=1).argmax(axis=1).tolist()
    assert sorting.predict(rows).tolist() == RawAttention(top_k=7, layers="all").predict(rows).tolist()


@pytest.mark.filterwarnings("error")
def test_all_layers_of_a_range_are_as_many_as_there_are():
    attention = np.random.default_rng(0).random((3, 5, 2))
    assert np.sort(strongest_layers(attention, (1, 3), "all")).tolist() == [[1, 2, 3]] * 3


@pytest.mark.parametrize(("mean", "odds"), [("arithmetic", 5), ("log", 3)])  # (.9 + .1) / .2, and sqrt(.9 .1) / .1
def test_purified_attention_by_hand(mean, odds):
    purified = PurifiedAttention(layers="all", attention_mean=mean, temperature=1).calibrate(FLAT)
    assert np.exp(purified.predict_log_proba(one([0.9, 0.1], [0.1, 0.1]))[0]) == pytest.approx(
        [odds / (odds + 1), 1 / (odds + 1)]
    )
    sharper = purified.set_params(temperature=2).calibrate(FLAT)
    assert np.exp(sharper.predict_log_proba(one([0.9, 0.1], [0.1, 0.1]))[0, 0]) == pytest.approx(odds**2 / (odds**2 + 1))


def test_the_prior_turns_the_answer():
    looks_left = Evidence.from_arrays(np.zeros((2, 2)), [[[0.4, 0.1]], [[0.2, 0.1]]], [0, 1], ["c", "c"])  # prior 3 : 1
    row = one([0.2, 0.1])
    assert RawAttention(top_k=1, layers="all").predict(row).tolist() == [0]
    assert PurifiedAttention(top_k=1, layers="all").calibrate(looks_left).predict(row).tolist() == [1]


def test_the_span_is_the_one_asked_for():
    row = Evidence.from_arrays(np.zeros((1, 2)), [[[0.2, 0.1]]], [0], ["t"], attention_delimited=[[[0.1, 0.2]]])
    answers = {span: RawAttention(top_k=1, layers="all", span=span).predict(row).tolist() for span in ("image", "delimited")}
    assert answers == {"image": [0], "delimited": [1]}


def test_an_image_without_attention_is_out_of_the_running():
    purified = PurifiedAttention(layers="all").calibrate(FLAT)
    proba = np.exp(purified.predict_log_proba(one([0.0, 0.1], [0.0, 0.2])))
    assert proba[0] == pytest.approx([0, 1])


def test_attention_below_the_released_codes_floor_counts_as_the_floor():
    attention = np.array([0.0, 1e-30, 1e-20, 2e-20, 0.5])
    expected = [-20 * math.log(10)] * 3 + [math.log(2) - 20 * math.log(10), math.log(0.5)]
    np.testing.assert_allclose(log_attention(attention), expected, rtol=1e-12)


@pytest.mark.parametrize("mean", ["arithmetic", "log"])
def test_an_image_without_any_attention_is_held_by_the_floor(mean):
    attention = np.array([[[0.0, 0.3, 0.1]]])  # one pass, one layer, three images
    prior = np.log(np.array([[0.2, 0.2, 0.4]]))
    found = purified_attention(attention, prior, np.array([[0]]), mean, 0.1)
    weights = np.array([1e-20 / 0.2, 0.3 / 0.2, 0.1 / 0.4]) ** 0.1
    np.testing.assert_allclose(found, [np.log(weights / weights.sum())], rtol=1e-12)
