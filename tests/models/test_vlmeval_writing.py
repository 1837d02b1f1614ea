"""Free replies to any message, as the class asks for them, under an intervention."""

import pytest
import torch
from transformers import GenerationConfig

from lad_eval.attention.interventions import Sofa
from lad_eval.attention.pruning.fastv import FastV
from lad_eval.attention.pruning.random_tokens import RandomTokens
from lad_eval.errors import DataError, UnsupportedModelError, UserError
from lad_eval.models.random import load_random
from lad_eval.models.vlmeval import InterceptedVLM
from lad_eval.models.vlmeval.writing import request_of
from tests.models.requests import make_requests
from tests.models.test_vlmeval_interception import Kit


@pytest.fixture(scope="module")
def parts():
    return load_random("qwen2-vl", seed=1)


@pytest.fixture
def made(parts):
    def make(ask=None):
        kit = Kit(*parts)
        kit.ask = (lambda inputs: ask(kit, inputs)) if ask else kit.plain
        return InterceptedVLM(kit, name="kit", weights="seed 1", image_preparation="native")

    return make


def message_of(vlm, pictures=4):
    return vlm.messages.of(make_requests(pictures, 1)[0])


@pytest.mark.parametrize("pictures", [2, 3, 4])
@pytest.mark.parametrize("how", ["drop", "mask"])
def test_a_pruner_that_keeps_all_writes_what_the_class_writes_and_draws(made, pictures, how):
    vlm = made()
    message = message_of(vlm, pictures)
    texts = []
    for intervention in (None, FastV(keep=1.0, layer=1, how=how)):
        torch.manual_seed(0)
        with vlm.under(intervention):
            texts.append(vlm.write(message))
    torch.manual_seed(0)
    assert texts == [vlm.inner.generate(message)] * 2


@pytest.mark.parametrize("intervention", [FastV(keep=0, layer=1), RandomTokens(keep=0.25, layer=1), Sofa(sigma=1.0, every=1)])
def test_an_intervention_acts_on_a_message_of_several_pictures(made, intervention):
    logits = []

    def ask(kit, inputs):
        written = kit.model.generate(**inputs, max_new_tokens=1, stopping_criteria=[lambda ids, scores, **_: torch.ones(1) > 0])
        logits.append(written[0, -1].item())
        return "written"

    vlm, first = made(ask), []
    hook = vlm.model.lm_head.register_forward_hook(lambda module, inputs, output: first.append(output[0, -1].clone()))
    for under in (None, intervention, intervention):
        with vlm.under(under):
            assert vlm.write(message_of(vlm, 3)) == "written"
    hook.remove()
    assert (first[1] - first[0]).abs().max() > 1e-3
    assert torch.equal(first[1], first[2])


def test_a_message_without_a_picture_is_read_as_it_is(made):
    def ask(kit, inputs):
        ids = torch.tensor([kit.processor.tokenizer("what is a dog?")["input_ids"]])
        return kit.processor.tokenizer.decode(kit.model.generate(input_ids=ids, max_new_tokens=4, do_sample=False)[0])

    vlm = made(ask)
    vlm.inner.inputs = lambda message: None
    message = [{"type": "text", "value": "what is a dog?"}]
    with vlm.under(FastV(keep=0, layer=1)):
        assert vlm.write(message) == vlm.inner.generate(message)


def test_a_message_with_a_film_is_refused(made):
    with pytest.raises(UserError, match=r"only images and text are supported, and a question contains video\.$"):
        made().write([{"type": "video", "value": "film.mp4"}, {"type": "text", "value": "what?"}])
    with pytest.raises(DataError, match=r"/nowhere\.png"):
        made().write([{"type": "image", "value": "/nowhere.png"}, {"type": "text", "value": "what?"}])


@pytest.mark.parametrize("form", ["argument", "config"])
def test_several_beams_are_refused(made, form):
    def ask(kit, inputs):
        settings = {"num_beams": 3, "max_new_tokens": 4}
        given = settings if form == "argument" else {"generation_config": GenerationConfig(**settings)}
        return str(kit.model.generate(**inputs, **given))

    vlm = made(ask)
    with pytest.raises(UnsupportedModelError, match=r"its class generates 3 replies at once \(num_beams\)"):
        vlm.write(message_of(vlm))


def test_messages_of_the_same_content_are_one_request(made):
    vlm = made()
    first, second = (request_of(message_of(vlm, 3)) for _ in range(2))
    assert first.key == second.key
    assert request_of(message_of(vlm, 4)).key != first.key
