"""Inputs put together from remembered parts are those that the model's processor makes, in every bit."""

import dataclasses
import threading

import pytest
import torch

from lad_eval.attention.spans import NOT_FOR_THE_MODEL, image_spans, labelled_spans, span_options
from lad_eval.errors import DataError, PictureError
from lad_eval.models.inference.continuation import align_prompt_end
from lad_eval.models.inputs.images import IMAGE_OPTIONS
from lad_eval.models.inputs.parts import ModelInputs
from lad_eval.models.random import FAMILIES
from tests.models.requests import Noise, make_requests

# Families whose processor treats the pictures of a request, or of a batch, together.
TOGETHER = {"llava-onevision", "idefics3", "smolvlm", "minicpm-v-4.6", "molmo2"}
SIZES = ((56, 56), (112, 56), (56, 84))


def plainly(processor, conversation, model, prepare, requests):
    """What the processor itself makes of requests, and the spans."""
    n = len(requests[0].images)
    prompts = [conversation.prompt(request.question, n, request.labels) for request in requests]
    images = [[prepare.images.get(source).image for source in request.images] for request in requests]
    made = processor(
        text=prompts,
        images=images,
        padding=True,
        padding_side="left",
        add_special_tokens=conversation.adds_special_tokens(prompts[0]),
        return_tensors="pt",
        **IMAGE_OPTIONS.get(model.config.model_type, lambda n: {})(n),
        **span_options(processor),
    )
    made = align_prompt_end(made, conversation.candidate_tokens(requests[0].identifiers, n, requests[0].question))
    sizes = [[(image.height, image.width) for image in row] for row in images]
    spans = image_spans(model, processor, made, n, image_sizes=sizes)
    if requests[0].labels:
        spans = labelled_spans(spans, made["input_ids"], [r.labels for r in requests], processor.tokenizer.decode)
    return {name: value for name, value in made.items() if name not in NOT_FOR_THE_MODEL}, spans


def turned(requests, by=1):
    return [request.reordered(request.permutation.shifted(by)) for request in requests]


def mixed(n, count):
    """Requests whose pictures have several sizes."""
    return [
        dataclasses.replace(request, images=tuple(Noise(900 + 10 * i + j, SIZES[(i + j) % 3]) for j in range(n)))
        for i, request in enumerate(make_requests(n, count))
    ]


def assert_same(batch, inputs, spans):
    assert batch.inputs.keys() == inputs.keys()
    for name, value in inputs.items():
        ours = batch.inputs[name]
        if isinstance(value, torch.Tensor):
            assert ours.dtype == value.dtype
            assert torch.equal(ours, value), name
        else:
            assert ours == value, name
    for part in ("image", "delimited", "owner"):
        assert torch.equal(getattr(batch.spans, part), getattr(spans, part)), part
    assert (batch.spans.label is None) == (spans.label is None)
    assert spans.label is None or torch.equal(batch.spans.label, spans.label)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gets_the_inputs_of_its_processor(tiny, parts, family):
    model, processor = tiny(family)
    conversation, prepare, _ = parts(family)
    requests = make_requests(3, 3)  # three lengths: the shorter rows are padded
    alike, other = requests[:1] * 2, make_requests(3, 5)[3:]
    for batch in (
        requests,
        turned(requests),
        turned(alike),
        alike,
        turned(requests, 2),
        other + requests[:1],
        turned(requests[:1]),
    ):
        assert_same(prepare(batch), *plainly(processor, conversation, model, prepare, batch))
    assert bool(prepare(turned(requests)).inputs.pictures) == (family not in TOGETHER)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_of_several_sizes_too(tiny, parts, family):
    model, processor = tiny(family)
    conversation, prepare, _ = parts(family)
    requests = mixed(3, 3)
    try:
        batches = [(batch, plainly(processor, conversation, model, prepare, batch)) for batch in (requests, turned(requests))]
    except Exception as refusal:
        with pytest.raises(type(refusal)):
            prepare(requests)
        return
    for batch, expected in (*batches, *batches):
        assert_same(prepare(batch), *expected)


@pytest.mark.parametrize("family", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl", "glm4v", "qwen3.5"])
def test_positions_are_those_that_the_model_computes(vlm, family):
    model = vlm(family, batch_size=3)
    inner = model.model.model
    requests = mixed(3, 3)
    for batch in (requests, turned(requests), turned(requests, 2)):
        prepared = model.preparation(batch)
        theirs = inner.compute_3d_position_ids(
            **{name: prepared.inputs[name] for name in ("input_ids", "attention_mask", "image_grid_thw", "mm_token_type_ids")},
            video_grid_thw=None,
            inputs_embeds=None,
            cache=None,
        )
        assert torch.equal(prepared.positions.ids, theirs)
        assert torch.equal(prepared.positions.deltas, inner.rope_deltas)
    assert prepared.positions.ids.shape[1:] == prepared.inputs["input_ids"].shape


def test_a_question_is_tokenized_once_and_a_picture_is_processed_once(parts):
    _, prepare, _ = parts("qwen2.5-vl")
    texts, pictures = [], []
    run, make = prepare._run, prepare._parts._processor

    def counted_run(prompts, *rest):
        texts.append(len(prompts))
        return run(prompts, *rest)

    def counted_make(images, **options):
        pictures.append(len(images))
        return make(images, **options)

    requests = make_requests(4, 3)
    for _ in range(2):  # of each kind the first batch is made both ways
        prepare(requests[:1] * 2)
    prepare(requests[1:2] * 2)
    prepare._run, prepare._parts._processor = counted_run, counted_make
    for shift in range(4):
        prepare(turned(requests[2:] * 2, shift))
    assert texts == [1]
    assert pictures == [1] * 4


def test_remembered_pictures_are_not_joined_where_their_features_are_held(vlm, monkeypatch):
    model = vlm("qwen2.5-vl", batch_size=3)
    requests = make_requests(3, 3)
    first = model.evidence(requests)
    model.evidence(requests)  # of each kind the first batch is made both ways
    read = []
    get = ModelInputs.__getitem__
    monkeypatch.setattr(ModelInputs, "__getitem__", lambda self, name: read.append(name) or get(self, name))
    model.evidence(turned(requests))
    assert "input_ids" in read
    assert "pixel_values" not in read
    monkeypatch.undo()
    assert abs(model.evidence(requests).log_probs - first.log_probs).max() < 1e-6


def test_a_processor_whose_batch_is_not_its_parts_is_served_the_plain_way(parts, tiny):
    model, processor = tiny("qwen2.5-vl")
    conversation, prepare, _ = parts("qwen2.5-vl")
    inner = prepare._stand_in.inner

    class Together:
        """Normalises over all pictures of a call."""

        def __getattr__(self, name):
            return getattr(inner, name)

        def __call__(self, images, **options):
            made = inner(images, **options)
            made["pixel_values"] = made["pixel_values"] - made["pixel_values"].mean()
            return made

    prepare._stand_in.inner = prepare._parts._processor = Together()
    requests = make_requests(3, 2)
    prepare(requests)
    batch = prepare(turned(requests))
    assert not batch.inputs.pictures
    pixels, _ = plainly(processor, conversation, model, prepare, turned(requests))
    assert torch.equal(batch.inputs["pixel_values"], pixels["pixel_values"] - pixels["pixel_values"].mean())


@pytest.mark.parametrize(
    ("family", "differing"),
    [
        ("idefics3", mixed(1, 3)),  # pictures of several sizes have other numbers of tiles, which the processor makes equal
        ("minicpm-v-4.6", make_requests(1, 3)),  # the pictures of several prompts are one
        ("llava-onevision", mixed(1, 3)),
    ],
)
def test_a_form_of_batch_that_differs_leaves_the_others_as_they_are(tiny, parts, family, differing):
    model, processor = tiny(family)
    conversation, prepare, _ = parts(family)
    alike = make_requests(1, 1) if family == "minicpm-v-4.6" else make_requests(1, 2)
    for requests, apart in ((alike, True), (differing, False), (alike, True), (differing, False)):
        batch = prepare(requests)
        assert bool(batch.inputs.pictures) == apart
        assert_same(batch, *plainly(processor, conversation, model, prepare, requests))


def test_where_several_forms_differ_no_more_are_tried(parts, monkeypatch):
    from lad_eval.models.inputs import preparation

    _, prepare, _ = parts("qwen2.5-vl")
    tried = []
    monkeypatch.setattr(preparation.Preparation, "_is_same", lambda self, prompts, *rest: bool(tried.append(prompts)))
    for side in range(2, 9):
        assert not prepare(make_requests(2, 1, size=(28 * side, 56))).inputs.pictures
    assert len(tried) == preparation._MOST_DIFFERING
    assert not prepare(make_requests(3, 1)).inputs.pictures  # another number of pictures is tried
    assert len(tried) == preparation._MOST_DIFFERING + 1


def test_pictures_are_read_in_several_threads_outside_the_lock(parts, monkeypatch):
    monkeypatch.setattr("lad_eval.models.inputs.parts._cores", lambda: 2)
    _, prepare, _ = parts("qwen2.5-vl")
    prepare(make_requests(3, 2))
    together = threading.Barrier(2, timeout=10)

    class Waits(Noise):
        def load(self):
            together.wait()
            assert not prepare.lock.locked()
            return super().load()

    request = dataclasses.replace(make_requests(2, 1)[0], images=(Waits(700), Waits(701)))
    prepare(make_requests(2, 2))
    prepare([request])
    assert not together.broken


def test_a_picture_that_cannot_be_read_is_named_with_its_sample(parts):
    _, prepare, _ = parts("qwen2.5-vl")

    class Broken(Noise):
        def load(self):
            raise PictureError("dog.jpg: cannot be read: it is damaged or no image.")

    prepare(make_requests(3, 2))
    request = make_requests(3, 2)[1]
    with pytest.raises(DataError, match=r"^Sample s1: dog\.jpg: cannot be read"):
        prepare([dataclasses.replace(request, images=(Noise(1), Broken(999), Noise(3)))])


@pytest.mark.parametrize("family", ["qwen2.5-vl", "llava-1.5", "llava-onevision"])
def test_evidence_of_batches_prepared_ahead_is_the_same(vlm, monkeypatch, family):
    """As on a GPU; candidates of two tokens continue the prompt at the positions of their own batch."""
    from lad_eval.models import huggingface
    from lad_eval.models.inference.batching import Batcher

    requests = make_requests(10, 5)
    every = [*requests, *turned(requests)]
    plain = vlm(family, batch_size=2).evidence(every)
    monkeypatch.setattr(huggingface, "Batcher", lambda size, ahead: Batcher(size, ahead=True))
    ahead = vlm(family, batch_size=2).evidence(every)
    assert (ahead.log_probs == plain.log_probs).all()
    assert (ahead.attention == plain.attention).all()
