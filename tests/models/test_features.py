"""Features of images that are kept are those that the vision tower would make again."""

from dataclasses import replace
from functools import wraps

import numpy as np
import pytest
import torch

from lad_eval.models.features import RememberedFeatures
from tests.models.requests import make_requests

KEEPS = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl", "llava-1.5", "gemma3", "mistral3")
CANNOT_TELL = ("idefics3", "llava-onevision")


def backwards(requests):
    return [replace(request, images=request.images[::-1]) for request in requests]


def count_images(model, monkeypatch):
    """Calls of the vision tower's entrance, with the number of rows of pixels in each."""
    counted = []
    encode = model.get_image_features

    @wraps(encode)
    def counting(**options):
        counted.append(len(options["pixel_values"]))
        return encode(**options)

    monkeypatch.setattr(model, "get_image_features", counting)
    return counted


@pytest.mark.parametrize("family", KEEPS)
def test_evidence_from_kept_features_is_that_from_pixels(vlm, family):
    requests = make_requests(3, 4)
    asked = [*requests, *backwards(requests)]
    kept, fresh = vlm(family, batch_size=3), vlm(family, batch_size=3)
    fresh._features = lambda inputs, images, move: dict(inputs)
    ours, theirs = kept.evidence(asked), fresh.evidence(asked)
    assert len(kept._features._held) == 12
    np.testing.assert_allclose(ours.log_probs, theirs.log_probs, atol=1e-5)
    np.testing.assert_allclose(ours.attention, theirs.attention, atol=1e-6)


@pytest.mark.parametrize("family", CANNOT_TELL)
def test_pixels_that_cannot_be_told_apart_by_image_stay(vlm, family):
    model = vlm(family, batch_size=2)
    model.evidence(make_requests(3, 2))
    assert not model._features._held


def test_an_image_is_encoded_once(vlm, tiny, monkeypatch):
    counted = count_images(tiny("llava-1.5")[0], monkeypatch)
    model = vlm("llava-1.5", batch_size=2)
    requests = make_requests(3, 2)
    first = model.evidence(requests)
    assert counted == [2, 1, 1, 6]  # the comparison of two images, then all six
    again = model.evidence(backwards(requests))
    assert counted == [2, 1, 1, 6]
    assert not np.allclose(first.log_probs, again.log_probs, atol=1e-6)  # shown in another order, they are other questions


def test_a_tower_that_mixes_images_is_noticed(vlm, tiny, monkeypatch):
    network = tiny("llava-1.5")[0]
    encode = network.get_image_features

    @wraps(encode)
    def mixing(**options):
        output = encode(**options)
        mean = torch.stack(list(output.pooler_output)).mean(dim=0)
        output.pooler_output = [tokens + mean for tokens in output.pooler_output]
        return output

    monkeypatch.setattr(network, "get_image_features", mixing)
    model = vlm("llava-1.5", batch_size=2)
    model.evidence(make_requests(3, 2))
    assert not model._features._held


def test_only_so_many_bytes_are_held_and_none_is_missed(vlm, tiny):
    requests = make_requests(3, 3)
    model, ample = vlm("qwen2.5-vl", batch_size=1), vlm("qwen2.5-vl", batch_size=1)
    model._features = RememberedFeatures(tiny("qwen2.5-vl")[0], capacity_bytes=1)
    np.testing.assert_allclose(model.evidence(requests).log_probs, ample.evidence(requests).log_probs, atol=1e-5)
    assert not model._features._held
    assert model._features._held.held_bytes == 0
