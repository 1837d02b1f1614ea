"""Features of images that are kept are those that the vision tower would make again; and what is kept has its bound."""

import gc
from dataclasses import replace
from functools import wraps

import numpy as np
import pytest
import torch
from PIL.Image import Image

from lad_eval.models.inputs.features import FeatureCache
from lad_eval.models.inputs.images import PROTOCOL_SIZE, ImageCache
from lad_eval.models.inputs.parts import PartsCache
from lad_eval.models.inputs.preparation import _blank
from tests.models.requests import make_requests

KEEPS = ("qwen2-vl", "qwen2.5-vl", "qwen3-vl", "llava-1.5", "gemma3", "mistral3", "llava-onevision")
CANNOT_TELL = ("idefics3", "minicpm-v-4.6")


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


def test_images_of_requests_that_the_processor_makes_together_are_encoded_once_too(vlm, tiny, monkeypatch):
    counted = count_images(tiny("llava-onevision")[0], monkeypatch)
    model = vlm("llava-onevision", batch_size=2)
    requests = make_requests(3, 2)
    model.evidence(requests)
    assert counted == [2, 1, 1, 3, 3, 6]  # the comparison of two images and of a whole request, then all six
    model.evidence(backwards(requests))
    assert counted == [2, 1, 1, 3, 3, 6]


def test_what_a_requests_row_means_for_an_image_alone_is_checked(vlm, tiny, monkeypatch):
    network = tiny("llava-onevision")[0]
    encode = network.get_image_features

    @wraps(encode)
    def by_request(**options):
        """Depends on how many requests there are, which an image alone does not tell."""
        output = encode(**options)
        output.pooler_output = [tokens * (1 + (len(options["batch_num_images"]) == 1)) for tokens in output.pooler_output]
        return output

    monkeypatch.setattr(network, "get_image_features", by_request)
    model = vlm("llava-onevision", batch_size=2)
    model.evidence(make_requests(3, 2))
    assert not model._features._held


@pytest.mark.parametrize("family", ["llava-onevision", "internvl", "qwen2.5-vl"])
def test_a_picture_of_requests_with_another_number_of_images_is_not_taken_for_another(vlm, family):
    """A single picture of LLaVA-OneVision has tiles, one of several has none; so do InternVL's have other numbers of tiles."""
    several = make_requests(3, 2, size=(112, 56))
    fewer = [replace(request, images=request.images[:2]) for request in make_requests(2, 2, size=(112, 56))]
    single = [replace(request, images=request.images[:1]) for request in make_requests(1, 2, size=(112, 56))]
    model, plain = vlm(family, batch_size=2), vlm(family, batch_size=2)
    plain._features = lambda inputs, images, move: dict(inputs)
    assert model.generate(single, max_new_tokens=3) == plain.generate(single, max_new_tokens=3)
    for requests in (several, fewer):
        np.testing.assert_allclose(model.evidence(requests).log_probs, plain.evidence(requests).log_probs, atol=1e-5)
    assert model.generate(single, max_new_tokens=3) == plain.generate(single, max_new_tokens=3)


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
    model._features = FeatureCache(tiny("qwen2.5-vl")[0], capacity_bytes=1)
    np.testing.assert_allclose(model.evidence(requests).log_probs, ample.evidence(requests).log_probs, atol=1e-5)
    assert not model._features._held
    assert model._features._held.held_bytes == 0


def pictures():
    """Prepared pictures that are in memory."""
    return {id(image) for image in gc.get_objects() if isinstance(image, Image) and image.size == PROTOCOL_SIZE}


def test_the_cache_of_pictures_counts_what_pillow_takes_and_the_cache_of_pixels_holds_no_picture(vlm):
    """Pillow keeps RGB in four bytes a pixel. A cache that held pictures beside what it counts would grow with the samples."""
    width, height = PROTOCOL_SIZE
    stand_in = _blank(PROTOCOL_SIZE)
    model, before = vlm("llava-1.5", batch_size=2, image_preparation="protocol"), pictures()
    model._prepare.images = ImageCache("protocol", capacity_bytes=4 * width * height * 4 + 3)
    model.evidence(make_requests(4, 5))
    assert len(model._prepare._parts) == 20
    assert len(pictures() - before) == len(model._prepare.images._held) == 4
    assert stand_in.size == PROTOCOL_SIZE


def test_pixels_of_a_picture_are_made_once_though_it_is_read_again(vlm):
    model, ample = vlm("llava-1.5", batch_size=2), vlm("llava-1.5", batch_size=2)
    model._prepare.images = ImageCache(model._prepare.images.preparation, capacity_bytes=0)
    requests = make_requests(3, 4)
    first = model.evidence(requests)
    held = model._prepare._parts._held
    made = dict(held._held)
    again = model.evidence(backwards(requests))
    assert len(made) == 12
    assert all(held.get(key) is answer for key, answer in made.items())
    np.testing.assert_array_equal(first.log_probs, ample.evidence(requests).log_probs)
    np.testing.assert_array_equal(again.log_probs, ample.evidence(backwards(requests)).log_probs)


def test_only_so_many_bytes_of_pixels_are_held_and_none_is_missed(vlm):
    requests = make_requests(3, 4)
    model, ample = vlm("qwen2.5-vl", batch_size=2), vlm("qwen2.5-vl", batch_size=2)
    prepare = model._prepare
    one = ample._prepare([requests[0]]).inputs["pixel_values"].nbytes // 3
    prepare._parts = PartsCache(prepare._image_processor, lambda: prepare.images, 3 * one + 99)
    np.testing.assert_array_equal(model.evidence(requests).log_probs, ample.evidence(requests).log_probs)
    assert 0 < prepare._parts._held.held_bytes <= 3 * one + 99
