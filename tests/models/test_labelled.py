"""Labels before images: in the prompt, in the spans, in evidence; families and models that cannot have them refuse."""

import dataclasses

import numpy as np
import pytest
import torch

from lad_eval.attention.cross_image.delimiter_scaling import DelimiterScaling
from lad_eval.attention.cross_image.tied import Tied, _same_place_in_first
from lad_eval.attention.spans import image_spans, labelled_spans
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.models.prompts.conversation import Conversation
from lad_eval.models.random import FAMILIES
from lad_eval.tasks.request import Permutation
from tests.models.requests import make_requests
from tests.models.test_preparation import assert_same, plainly

# Their templates put all images before all text.
IMAGES_FIRST = ("llava-1.5", "llava-onevision")


def labelled(requests, labelling):
    """The requests with labelled images, each in its order."""
    of_view = []
    for request in requests:
        names = request.permutation.apply(request.identifiers) if labelling == "places" else request.identifiers
        made = dataclasses.replace(request, labelling=labelling, identifiers=names)
        if labelling == "names":
            made = dataclasses.replace(made, candidates=request.permutation.order)
        of_view.append(made)
    return of_view


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in IMAGES_FIRST])
def test_every_family_shows_the_labels_and_counts_them_to_their_images(tiny, parts, family):
    model, processor = tiny(family)
    conversation, prepare, checker = parts(family)
    requests = labelled(make_requests(3, 3), "names")  # three lengths, and other labels in each row
    assert len({request.labels for request in requests}) == 3
    placeholder, tokenizer = conversation.placeholder, processor.tokenizer
    for request in requests:
        pieces = conversation.prompt(request.question, 3, request.labels).split(placeholder)
        assert len(pieces) == 4
        for piece, label in zip(pieces, request.labels, strict=False):
            assert label in piece
            assert sum(other in piece for other in request.labels) == 1
        assert request.question.strip() in pieces[-1]
    assert not checker.report(requests).faults
    for batch in (requests, requests[::-1], requests[:1] * 2, requests[1:2]):  # from the second on rows are remembered
        prepared = prepare(batch)
        spans = prepared.spans
        assert_same(prepared, *plainly(processor, conversation, model, prepare, batch))
        ids = prepared.inputs["input_ids"]
        for b, request in enumerate(batch):
            row, before = ids[b].tolist(), 0
            for k, label in enumerate(request.labels):
                start, stop = spans.delimited[b, k].tolist()
                text = "".join(tokenizer.decode(row[start : start + int(spans.label[b, k])]).split())
                wanted = "".join(label.split())
                assert text.startswith(wanted)
                assert wanted not in "".join(tokenizer.decode(row[start + 1 : stop]).split())
                assert before <= start < start + int(spans.label[b, k]) <= int(spans.image[b, k, 0])
                assert int(spans.image[b, k, 1]) <= stop
                assert not bool((spans.owner[b, start : start + int(spans.label[b, k])] >= 0).any())
                before = stop


def test_identical_pictures_in_other_orders_of_labels_are_other_prompts(parts):
    _, prepare, _ = parts("qwen2.5-vl")
    [request] = make_requests(3, 1)
    plain = prepare([request])
    first, other = labelled([request] * 2, "names")
    other = other.reordered(Permutation((1, 2, 0)))
    rows = [prepare([each]) for each in (first, other, first, request)]
    assert other.images == first.images
    assert not torch.equal(rows[0].inputs["input_ids"], rows[1].inputs["input_ids"])
    assert torch.equal(rows[0].inputs["input_ids"], rows[2].inputs["input_ids"])
    assert rows[3].inputs["input_ids"].shape[1] < rows[0].inputs["input_ids"].shape[1]
    assert torch.equal(rows[3].spans.delimited, plain.spans.delimited)
    assert rows[3].spans.label is None


@pytest.mark.parametrize("family", IMAGES_FIRST)
def test_a_template_that_puts_images_first_is_refused_by_name(vlm, family):
    model = vlm(family)
    requests = labelled(make_requests(3, 1), "places")
    kind = type(model.processor).__name__
    for ask in (model.check_prompts, model.evidence, model.generate):
        with pytest.raises(UnsupportedModelError) as caught:
            ask(requests)
        assert str(caught.value) == (
            f"random:{family}: the chat template of its {kind} puts all images before the text, so that none can have a label; "
            "leave out methods with labelled."
        )


def test_a_template_of_strings_has_labels_before_its_placeholders(tiny):
    _, processor = tiny("qwen2.5-vl")
    strings = "{% for m in messages %}{{ m.role + ':' + m.content }}\n{% endfor %}"

    class Chat:
        image_token, tokenizer, chat_template = "<image>", processor.tokenizer, strings

        def apply_chat_template(self, messages, **options):
            return self.tokenizer.apply_chat_template(messages, **options)

    prompt = Conversation(Chat(), "x").prompt("which?", 2, ("Image B:", "Image A:"))
    assert prompt == "user:Image B:<image>\nImage A:<image>\nwhich?\n"


def test_a_prompt_without_the_label_is_refused(parts, tiny):
    model, processor = tiny("qwen2.5-vl")
    _, prepare, _ = parts("qwen2.5-vl")
    [request] = make_requests(3, 1)
    inputs = prepare([request]).inputs
    spans = image_spans(model, processor, dict(inputs), 3)
    with pytest.raises(UnsupportedModelError, match="lacks 'Image 1:' before image 1"):
        labelled_spans(spans, inputs["input_ids"], [labelled([request], "order")[0].labels], processor.tokenizer.decode)


@pytest.mark.parametrize("family", ["qwen2.5-vl", "gemma3", "glm4v"])
def test_logits_are_read_by_name_and_attention_by_place_and_both_belong_to_one_image(vlm, family):
    """One prompt, read as a request of each view: columns by name in the one are columns by place in the other."""
    model = vlm(family, batch_size=2)
    for request in labelled(make_requests(4, 4), "names")[1:]:
        order = request.permutation
        # The same images at the same places under the same labels; here a position is a place.
        names = order.inverse.apply(request.identifiers)
        by_place = dataclasses.replace(
            request, labelling="places", permutation=Permutation.identity(4), identifiers=names, candidates=None
        )
        assert by_place.labels == request.labels
        named, placed = model.evidence([request]), model.evidence([by_place])
        assert np.ptp(named.log_probs) > 1e-3
        np.testing.assert_allclose(named.log_probs[0], placed.log_probs[0][list(order.order)], atol=1e-5)
        for part in ("attention", "attention_delimited"):
            ours, theirs = getattr(named, part)[0], getattr(placed, part)[0]
            assert np.ptp(ours) > 1e-4
            np.testing.assert_allclose(ours, theirs[:, list(order.order)], atol=1e-6)
        assert (named.attention_delimited.sum(axis=1) > named.attention.sum(axis=1)).all(), "a label has some attention"


def test_only_delimiters_are_scaled_and_no_label(vlm):
    from lad_eval.attention.cross_image.delimiter_scaling import _delimiters

    model = vlm("qwen2.5-vl")
    layout = model.preparation(labelled(make_requests(3, 2), "places")).layout
    ids = model.model.config.vision_start_token_id, model.model.config.vision_end_token_id
    assert torch.equal(_delimiters(layout), torch.isin(layout.ids, torch.tensor(ids)))
    with model.under(DelimiterScaling(scale=4.0, layers=1)):
        assert np.isfinite(model.evidence(labelled(make_requests(3, 2), "names")).log_probs).all()


def test_tied_refuses_labels_that_are_an_order(vlm):
    """A family numbers images by itself, and labels of unequal length give images of unequal length."""
    numbered = vlm("minicpm-v-4.6").preparation(labelled(make_requests(3, 1), "places")).layout
    with pytest.raises(UnsupportedModelError, match="numbers images after their labels"):
        _same_place_in_first(numbered, "a model")
    model = vlm("qwen2.5-vl")
    with model.under(Tied()), pytest.raises(UserError, match="images of equally many tokens, with their labels"):
        model.evidence(labelled(make_requests(10, 1), "places"))
