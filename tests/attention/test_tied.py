"""Tied positions: a pass that is a function of the set of images, exactly, or a refusal."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from lad_eval.attention.cross_image.tied import Tied
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.evidence.table import Evidence
from lad_eval.models.base import by_identifiers
from lad_eval.models.registry import load_model
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Permutation
from tests.attention.cross_image_prompts import logits, prepared, under


def ordered(model, sample, orders, intervention=None, variants=()):
    """Evidence of a sample in these orders, and its attention by image."""
    task = load_task("scenes_random_n4").with_prompt(*variants)
    requests = [task.request(sample, Permutation(tuple(order))) for order in orders]
    with model.under(intervention):
        parts = [model.evidence(group) for group in by_identifiers(requests)]
    evidence = Evidence.concatenate(parts).select_keys([request.key for request in requests])
    return evidence, by_image(evidence, evidence.attention)


def by_image(evidence, columns):
    """Columns by position, put in the order of the images."""
    sorted_columns = np.empty_like(columns)
    for row, order in enumerate(evidence.perm.tolist()):
        sorted_columns[row][..., order] = columns[row]
    return sorted_columns


@pytest.fixture(scope="module")
def sample():
    return next(load_task("scenes_random_n4").samples("test"))


@pytest.mark.parametrize(
    ("family", "orders"),
    [
        ("qwen2.5-vl", [(0, 1, 2, 3), (3, 1, 0, 2)]),  # rotary positions of three axes
        pytest.param("qwen2.5-vl", list(itertools.permutations(range(4))), marks=pytest.mark.slow),
        ("llava-onevision", [(0, 1, 2, 3), (2, 0, 3, 1), (3, 2, 1, 0)]),  # of one
        ("glm4v", [(0, 1, 2, 3), (2, 0, 3, 1)]),
    ],
)
def test_attention_moves_with_the_images_and_places_are_answered_alike(sample, family, orders):
    model = load_model(f"random:{family}", device="cpu", batch_size=8)
    plain, plain_by_image = ordered(model, sample, orders)
    assert np.ptp(plain.log_probs, axis=0).max() > 0.1
    evidence, of_images = ordered(model, sample, orders, Tied())
    assert np.ptp(evidence.log_probs, axis=0).max() < 1e-4
    assert np.ptp(of_images, axis=0).max() < 1e-6 < np.ptp(plain_by_image, axis=0).max()
    assert len(set(evidence.log_probs.argmax(axis=1))) == 1
    again, _ = ordered(model, sample, orders)
    assert (again.log_probs == plain.log_probs).all()


def test_equal_images_get_equal_attention(sample):
    model = load_model("random:qwen2.5-vl", device="cpu", batch_size=8)
    alike = replace(sample, images=sample.images[:1] * 4)
    _, attention = ordered(model, alike, [(0, 1, 2, 3)], Tied())
    assert np.ptp(attention, axis=2).max() < 1e-6
    _, plain = ordered(model, alike, [(0, 1, 2, 3)])
    assert np.ptp(plain, axis=2).max() > 1e-3


@pytest.mark.parametrize(
    ("family", "orders"),
    [
        ("qwen2.5-vl", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)]),
        pytest.param("qwen2.5-vl", list(itertools.permutations(range(4))), marks=pytest.mark.slow),
        ("glm4v", [(0, 1, 2, 3), (2, 0, 3, 1)]),
        ("ovis2", [(0, 1, 2, 3), (2, 0, 3, 1)]),
    ],
)
def test_images_that_keep_their_labels_are_answered_alike_in_every_order(sample, family, orders):
    model = load_model(f"random:{family}", device="cpu", batch_size=8)
    plain, plain_by_image = ordered(model, sample, orders, variants=("labelled-places",))
    assert np.ptp(by_image(plain, plain.log_probs), axis=0).max() > 1e-3 < np.ptp(plain_by_image, axis=0).max()
    evidence, of_images = ordered(model, sample, orders, Tied(), ("labelled-places",))
    assert np.ptp(by_image(evidence, evidence.log_probs), axis=0).max() < 1e-4
    assert np.ptp(evidence.log_probs, axis=1).min() > 1e-2, "places differ in what they show"
    assert np.ptp(of_images, axis=0).max() < 1e-4
    # Where names move through images, each order is another set of named images; only which places they have is nothing.
    moved, _ = ordered(model, sample, orders, Tied(), ("labelled-names",))
    both, _ = ordered(model, sample, orders, Tied(), ("labelled",))
    assert np.ptp(moved.log_probs, axis=0).max() > 1e-4
    np.testing.assert_allclose(moved.log_probs, both.log_probs, atol=1e-4)
    np.testing.assert_allclose(moved.attention, both.attention, atol=1e-4)


def test_equal_images_get_equal_attention_whatever_their_labels(sample):
    """All labels have the positions of the first, so that no image is nearer to its own: only what includes labels differs."""
    model = load_model("random:qwen2.5-vl", device="cpu", batch_size=8)
    alike = replace(sample, images=sample.images[:1] * 4)
    orders = [(0, 1, 2, 3), (3, 1, 0, 2)]
    evidence, _ = ordered(model, alike, orders, Tied(), ("labelled-names",))
    assert np.ptp(evidence.log_probs, axis=0).max() < 1e-4, "by name"
    assert np.ptp(evidence.attention, axis=0).max() < 1e-4
    assert np.ptp(evidence.attention, axis=2).max() < 1e-6
    assert np.ptp(evidence.attention_delimited, axis=2).max() > 1e-4
    plain, _ = ordered(model, alike, orders[:1], variants=("labelled-names",))
    assert np.ptp(plain.attention, axis=2).max() > 1e-3


def test_one_labelled_image_is_left_as_it_is(sample):
    model = load_model("random:qwen2.5-vl", device="cpu", batch_size=8)
    request = load_task("scenes_random_n4").with_prompt("labelled").request(sample, Permutation.identity(4))
    single = replace(request, images=request.images[:1], candidates=(0,), identifiers=("1",), permutation=Permutation((0,)))
    assert single.labels == ("Image 1:",)
    batch = model.preparation([single])
    inputs = model._inputs(batch)
    assert torch.equal(under(Tied(), model.model, batch.layout, inputs), logits(model.model, inputs))


def test_a_prompt_of_one_image_is_left_as_it_is(lab):
    rows = [(images[:1], text) for images, text in lab.ROWS[:1]]
    model, layout, inputs = prepared(lab, "qwen2.5-vl", rows, images=1)
    assert torch.equal(under(Tied(), model, layout, inputs), logits(model, inputs))


@pytest.mark.parametrize(
    ("family", "says"),
    [
        ("qwen3.5", "has layers without attention"),
        ("llava-1.5", "puts text between images"),
        ("llama4", "attends within a window in layer 0"),
    ],
)
def test_a_model_that_reads_images_in_order_all_the_same_is_refused(sample, family, says):
    model = load_model(f"random:{family}", device="cpu", batch_size=1)
    with pytest.raises(UnsupportedModelError, match=f"{says}.*; leave out tied"):
        ordered(model, sample, [(0, 1, 2, 3)], Tied())


def test_images_of_unequal_sizes_are_refused(lab):
    model, layout, inputs = prepared(lab, "qwen2.5-vl")
    with pytest.raises(UserError, match="images of equally many tokens; use --image-preparation protocol"):
        under(Tied(), model, layout, inputs)
