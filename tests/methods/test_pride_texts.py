"""PriDe between options that are texts: it repairs a preference for letters, and nothing that the images' order does."""

import numpy as np
import pytest

from lad_eval.evidence.table import Evidence
from lad_eval.methods import make_method
from lad_eval.metrics import Predictions, consistency
from lad_eval.tasks.request import draw_arrangements

N, SAMPLES, MOVABLE = 4, 40, 3
BIAS = np.array([3.0, 0.0, -1.0, 0.5])


def log_softmax(values):
    return values - np.logaddexp.reduce(values, axis=-1, keepdims=True)


def rows(arrangements, scores, split, by_image_order=None):
    """Evidence of a model that likes letters by BIAS: option `o` of a sample has the score `scores[sample, o]`.

    With `by_image_order`, Float[samples, T, N], the order of the images changes what the options score.
    """
    logs, perm, gold, names = [], [], [], []
    for sample, of_options in enumerate(scores):
        for turn, arrangement in enumerate(arrangements):
            order = list(arrangement.options.order)
            more = 0 if by_image_order is None else by_image_order[sample, turn]
            logs.append((of_options + more)[order] + BIAS)
            perm.append(order)
            gold.append(order.index(int(of_options.argmax())))
            names.append(f"{split}{sample}")
    return Evidence.from_arrays(log_softmax(np.array(logs)), gold_position=gold, sample_id=names, perm=perm, split=split)


@pytest.fixture
def calibrated():
    (same,) = draw_arrangements(N, MOVABLE, 1, 0)
    shifts = [same._replace(options=order) for order in same.options.cyclic_shifts()]
    scores = np.random.default_rng(1).normal(size=(5, N))
    return make_method("pride").calibrate(rows(shifts, scores, "calibration"))


def consistency_of(method, evidence, arrangements):
    turns = np.tile(np.arange(len(arrangements)), SAMPLES)
    return consistency(Predictions.of(evidence, method.predict(evidence), turns).grid.chosen)


def test_a_preference_for_letters_is_repaired_exactly(calibrated):
    arrangements = draw_arrangements(N, MOVABLE, 5, 42)
    evidence = rows(arrangements, np.random.default_rng(0).normal(size=(SAMPLES, N)), "test")
    assert consistency_of(make_method("vanilla"), evidence, arrangements) < 50
    assert consistency_of(calibrated, evidence, arrangements) == 100
    assert (calibrated.predict(evidence) == evidence.gold_position).all()


def test_what_the_order_of_the_images_does_is_not_lowered(calibrated):
    """With options that keep their letters, a prior over letters moves all orders of a sample alike."""
    images = [a._replace(options=draw_arrangements(N, 1, 1, 0)[0].options) for a in draw_arrangements(1, MOVABLE, 5, 42)]
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(SAMPLES, len(images), N))
    evidence = rows(images, rng.normal(size=(SAMPLES, N)), "test", noise)
    unbiased = rows(images, rng.normal(size=(SAMPLES, N)) * 0, "test", noise)
    assert consistency_of(calibrated, evidence, images) < 60
    # What is left is the images' own effect: the answers of a model without a preference for letters.
    plain = evidence.log_probs - BIAS
    assert (calibrated.predict(evidence) == plain.argmax(axis=1)).all()
    assert consistency_of(calibrated, unbiased, images) < 40
