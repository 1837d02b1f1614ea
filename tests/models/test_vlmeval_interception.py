"""`generate` replaced on an instance: what is asked, what comes back, and that nothing is left behind."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from transformers import GenerationConfig
from transformers.generation.utils import GenerateDecoderOnlyOutput

from lad_eval.attention.interventions import Sofa
from lad_eval.attention.pruning.fastv import FastV
from lad_eval.attention.pruning.random_tokens import RandomTokens
from lad_eval.errors import DataError, OutOfMemoryError, UnsupportedModelError, UserError
from lad_eval.models.prompts.conversation import Conversation
from lad_eval.models.vlmeval import InterceptedVLM
from lad_eval.models.vlmeval.interception import intercepted
from lad_eval.models.vlmeval.prompts import PromptEnd
from tests.models import internvl_shaped
from tests.models.requests import make_requests


class Kit:
    """The form of a VLMEvalKit model: images and a text become a prompt, which goes to `self.model.generate`."""

    def __init__(self, model, processor, ask=None):
        self.model, self.processor, self.ask = model, processor, ask or self.plain
        self.given = {}

    def inputs(self, message):
        from PIL import Image

        parts = [{"type": "image"} if part["type"] == "image" else {"type": "text", "text": part["value"]} for part in message]
        prompt = self.processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
        images = [Image.open(part["value"]) for part in message if part["type"] == "image"]
        return self.processor(text=[prompt], images=images, return_tensors="pt")

    def plain(self, inputs):
        written = self.model.generate(**inputs, max_new_tokens=8, do_sample=True, temperature=0.7)
        return self.processor.tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    def generate(self, message, dataset=None):
        self.given = {"message": message, "dataset": dataset}
        return self.ask(self.inputs(message))


@pytest.fixture(scope="module")
def parts(request):
    from lad_eval.models.random import load_random

    return load_random("qwen2-vl", seed=1)


@pytest.fixture
def made(parts):
    """made(ask): an InterceptedVLM around a class that asks its model in this way."""

    def make(ask=None, **options):
        kit = Kit(*parts)
        kit.ask = kit.plain if ask is None else lambda inputs: ask(kit, inputs)
        given = {"name": "kit", "weights": "seed 1", "image_preparation": "native", **options}
        return InterceptedVLM(kit, **given)

    return make


REQUEST = make_requests(4, 1)[0]


def answer(vlm, position=2):
    return vlm.answer(vlm.messages.of(REQUEST), REQUEST, lambda evidence: position)


def test_the_class_decodes_the_chosen_candidate(made):
    vlm = made()
    assert [answer(vlm, position)[0] for position in range(4)] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("form", ["positional", "inputs", "config", "dictionary", "default config"])
def test_every_form_of_call_gives_the_same(made, form, monkeypatch):
    def ask(kit, inputs):
        given = {key: value for key, value in inputs.items() if key != "input_ids"}
        ids, model = inputs["input_ids"], kit.model
        if form == "positional":
            written = model.generate(ids, **given, max_new_tokens=4)
        elif form == "inputs":
            written = model.generate(inputs=ids, **given, max_new_tokens=4)
        elif form == "config":
            written = model.generate(**inputs, generation_config=GenerationConfig(max_new_tokens=4, num_beams=3))
        else:
            if form == "default config":
                monkeypatch.setattr(model.generation_config, "return_dict_in_generate", True)
            output = model.generate(**inputs, **({"return_dict_in_generate": True} if form == "dictionary" else {}))
            assert isinstance(output, GenerateDecoderOnlyOutput)
            written = output.sequences
        assert torch.equal(written[:, : ids.shape[1]], ids)
        assert written[0, -1] == model.generation_config.eos_token_id
        return kit.processor.tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)

    usual = answer(made())[1]
    text, evidence = answer(made(ask))
    assert text == "3"
    np.testing.assert_allclose(evidence.log_probs, usual.log_probs, atol=1e-6)


def test_the_instance_is_as_before(made, parts):
    vlm, before = made(), [dict(vars(module)) for module in parts[0].modules()]
    answer(vlm)
    parts[0].model.rope_deltas = before[1]["rope_deltas"]  # every forward pass of Qwen-VL sets it
    assert [dict(vars(module)) for module in parts[0].modules()] == before
    mine = lambda **given: given["input_ids"]  # noqa: E731
    vars(parts[0])["generate"] = mine
    try:
        with pytest.raises(UnsupportedModelError), intercepted(parts[0], None):
            raise UnsupportedModelError("stop")
        assert vars(parts[0])["generate"] is mine
    finally:
        del vars(parts[0])["generate"]


def test_the_instance_is_as_before_when_the_class_fails(made, parts):
    def ask(kit, inputs):
        raise KeyError("pixel_values")

    before = dict(vars(parts[0]))
    with pytest.raises(UnsupportedModelError, match=r"its class Kit fails on sample s0 \(KeyError: 'pixel_values'\)\.$"):
        answer(made(ask))
    assert vars(parts[0]) == before


def test_a_class_that_catches_everything_hides_no_fault(made):
    def ask(kit, inputs):
        try:
            return kit.plain({**inputs, "image_grid_thw": inputs["image_grid_thw"][:2]})
        except Exception:
            return "Failed"

    with pytest.raises(UnsupportedModelError, match="nothing says which of them belong to which of 4 images"):
        answer(made(ask))


def test_a_class_that_does_not_ask(made):
    with pytest.raises(UnsupportedModelError, match="answered without calling `generate`"):
        answer(made(lambda kit, inputs: "1"))


def test_a_class_that_asks_the_same_again_and_another_question(made, parts):
    passes = []
    hook = parts[0].register_forward_pre_hook(lambda *args: passes.append(1))
    text, _ = answer(made(lambda kit, inputs: [kit.plain(inputs), kit.plain(inputs)][1]))
    hook.remove()
    assert (text, len(passes)) == ("3", 1)

    def ask(kit, inputs):
        kit.plain(inputs)
        tokens = ("input_ids", "attention_mask", "mm_token_type_ids")
        return kit.plain({key: value[:, 1:] if key in tokens else value for key, value in inputs.items()})

    with pytest.raises(UnsupportedModelError, match="more than one prompt"):
        answer(made(ask))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda model, inputs: {"inputs_embeds": torch.zeros(1, 9, 64)}, "without the prompt's tokens"),
        (lambda model, inputs: {**inputs, "past_key_values": object()}, "reads the prompt before"),
        (lambda model, inputs: {**inputs, "input_ids": inputs["input_ids"].repeat(2, 1)}, "runs 2 prompts at once"),
    ],
)
def test_calls_that_cannot_be_read_are_refused(made, change, text):
    with pytest.raises(UnsupportedModelError, match=text):
        answer(made(lambda kit, inputs: kit.model.generate(**change(kit.model, dict(inputs)))))


def test_messages_must_fit_their_requests(made):
    vlm = made()
    message = vlm.messages.of(REQUEST)
    with pytest.raises(DataError, match=r"^Sample s0: its message shows 3 images, and its request has 4\.$"):
        vlm.evidence_of([message[1:]], [REQUEST])
    with pytest.raises(UserError, match=r"^2 messages for 1 requests: there must be one message per request\.$"):
        vlm.evidence_of([message, message], [REQUEST])
    with pytest.raises(UserError, match="There are no requests"):
        vlm.evidence_of([], [])
    with pytest.raises(UserError, match="the same number of images"):
        vlm.evidence([REQUEST, make_requests(3, 1)[0]])
    with pytest.raises(DataError, match=r"/nowhere\.png: no such image"):
        vlm.evidence_of([[{**part, "value": "/nowhere.png"} if part["type"] == "image" else part for part in message]], [REQUEST])


def test_the_message_is_the_class_s_to_change(made):
    vlm = made(dataset="COCORetrieval_Random_N4")
    message = vlm.messages.of(REQUEST)
    vlm.inner.ask = lambda inputs: vlm.inner.given["message"].clear() or vlm.inner.plain(inputs)
    vlm.evidence_of([message], [REQUEST])
    assert len(message) == 5
    assert vlm.inner.given["dataset"] == "COCORetrieval_Random_N4"
    assert vlm.fingerprint["harness"]["dataset"] == "COCORetrieval_Random_N4"
    assert vlm.fingerprint["weights"] == "seed 1"


def test_objects_without_a_model_are_refused(parts):
    class Api:
        is_api = True

    class Other:
        pass

    with pytest.raises(UnsupportedModelError, match="it is an API, which shows neither"):
        InterceptedVLM(Api(), name="gpt")
    with pytest.raises(UnsupportedModelError, match="has no transformers model as its `model` attribute"):
        InterceptedVLM(Other(), name="other")
    other = Other()
    other.model = torch.nn.Linear(1, 1)
    with pytest.raises(UnsupportedModelError, match="has neither a processor nor a tokenizer"):
        InterceptedVLM(other, name="other")
    other.processor = parts[1]
    with pytest.raises(UnsupportedModelError, match="Linear is not supported: neither it nor a model inside it answers"):
        InterceptedVLM(other, name="other")


def test_embeddings_of_another_length_are_refused(made):
    model, tokenizer = internvl_shaped.make()
    embed = model.embed
    model.embed = lambda pixels, ids: embed(pixels, ids)[:, 1:]

    class Chatting:
        def __init__(self):
            self.model, self.tokenizer = model, tokenizer

        def generate(self, message, dataset=None):
            pixels = torch.rand(4, 3, 8, 8)
            question = "<image>\n" * 4 + message[-1]["value"]
            return model.chat(tokenizer, pixels, question, {"max_new_tokens": 4}, num_patches_list=[1] * 4)

    vlm = InterceptedVLM(Chatting(), name="chat", weights="x", image_preparation="native")
    with pytest.raises(UnsupportedModelError, match="InternVLShaped is not supported: it turns a prompt of"):
        answer(vlm)


@pytest.mark.parametrize(
    ("family", "end", "lead"),
    [
        ("qwen2-vl", "<|im_start|>assistant\n", ""),
        ("qwen2-vl", "Caption: a dog\nAnswer:", " "),
        ("qwen2-vl", "Caption: a dog\nAnswer: ", ""),
        ("smolvlm", "<end_of_utterance>\nAssistant:", " "),
        ("llava-1.5", "a dog ASSISTANT:", " "),
    ],
)
def test_candidates_go_on_from_the_end_of_any_prompt(tiny, family, end, lead):
    _, processor = tiny(family)
    tokenizer = processor.tokenizer
    ids = tokenizer(f"a red circle {end}", add_special_tokens=False)["input_ids"]
    names = ("1", "2", "10")
    found = PromptEnd(tokenizer, Conversation(processor, family), family).candidate_tokens(ids, names)
    kept = ids[: len(ids) - found.drop]
    for name, tokens in zip(names, found.trie.candidates, strict=True):
        whole = [*kept, *found.lead, *tokens]
        assert tokenizer.decode(whole) == f"a red circle {end}{lead}{name}"
        assert whole == tokenizer(f"a red circle {end}{lead}{name}", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    ("source", "commit", "expected"),
    [
        (f"/cache/hub/models--Qwen--Qwen2-VL-2B-Instruct/snapshots/{'ab' * 20}", None, f"Qwen/Qwen2-VL-2B-Instruct@{'ab' * 20}"),
        ("org/name", "abc123", "org/name@abc123"),
    ],
)
def test_weights_of_the_hub_are_named_by_their_commit(made, parts, monkeypatch, source, commit, expected):
    monkeypatch.setattr(parts[0].config, "_name_or_path", source)
    monkeypatch.setattr(parts[0].config, "_commit_hash", commit, raising=False)
    assert made(weights=None).fingerprint["weights"] == expected


def test_loose_weights_are_told_by_their_digest(made, parts):
    first = made(weights=None).fingerprint["weights"]
    assert first.startswith("sha256:")
    assert made(weights=None, name="other").fingerprint["weights"] == first


def test_a_full_memory_is_told_as_such(made):
    def ask(kit, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(OutOfMemoryError, match=r"^kit: one request does not fit in memory"):
        answer(made(ask))


def test_inputs_that_the_model_does_not_take_are_told_in_one_line(made):
    with pytest.raises(UnsupportedModelError, match=r"fails on sample s0 \(ValueError: The following `model_kwargs`"):
        answer(made(lambda kit, inputs: kit.plain({**inputs, "colour": 3})))


@pytest.mark.parametrize("intervention", [Sofa(sigma=1.0, every=1), FastV(keep=0.3, layer=1), RandomTokens(keep=0.3, layer=1)])
def test_a_prompt_that_is_read_again_for_every_prefix_is_read_under_the_intervention(made, monkeypatch, intervention):
    model, requests = made(), make_requests(12, 1)
    with model.under(intervention):
        continued = model.evidence(requests)
    monkeypatch.setattr("lad_eval.models.vlmeval.passes._continues", lambda *_: False)
    with model.under(intervention):
        again = model.evidence(requests)
        late = model.evidence_batches(requests)
    assert again.forward_passes.tolist() == [2]
    np.testing.assert_allclose(again.log_probs, continued.log_probs, atol=1e-4)
    assert np.abs(model.evidence(requests).log_probs - again.log_probs).max() > 1e-3
    np.testing.assert_array_equal(next(late).log_probs, again.log_probs)


@pytest.mark.parametrize("token", ["<|im_end|>", "<|video_pad|>", "<image>", "<ImageHere>"])
def test_a_control_token_is_refused_in_whatever_text_the_class_is_given(made, token):
    vlm = made()
    spoiled = dataclasses.replace(REQUEST, question=f"what is {token}?")
    for ask in (lambda: vlm.evidence([REQUEST, spoiled]), lambda: vlm.generate([REQUEST, spoiled])):
        with pytest.raises(DataError, match=f"Sample s0: its question becomes '{token}'".replace("|", "[|]")):
            ask()
    assert [str(fault)[:10] for fault in vlm.check_prompts([REQUEST, spoiled]).faults] == ["Sample s0:"]
    assert vlm.inner.given == {}
    message = [*vlm.messages.of(REQUEST), {"type": "text", "value": f"and {token}"}]
    with pytest.raises(DataError, match="its question becomes"):
        vlm.evidence_of([message], [REQUEST])


def test_a_prompt_longer_than_the_context_is_refused_by_name(made, parts, monkeypatch):
    text = parts[0].config.get_text_config()
    prompts = []

    def ask(kit, inputs):
        prompts.append(inputs["input_ids"].shape[1])
        return kit.plain(inputs)

    made(ask).evidence([REQUEST])
    monkeypatch.setattr(text, "max_position_embeddings", prompts[0] + 1)
    assert len(made().evidence([REQUEST])) == 1
    monkeypatch.setattr(text, "max_position_embeddings", prompts[0])
    with pytest.raises(DataError, match=f"Sample s0: its prompt has {prompts[0]} tokens .and 1 for the answer., and kit takes"):
        made().evidence([REQUEST])
    with pytest.raises(DataError, match=f"its prompt has {prompts[0]} tokens .and 16 for the answer."):
        made().generate([REQUEST])


def test_the_class_s_template_prints_the_run_s_date(made, parts):
    model, processor = parts
    dated = copy.copy(processor)
    dated.chat_template = "{{ strftime_now('%d %b %Y') }}" + processor.chat_template
    seen = []

    def ask(kit, inputs):
        seen.append(kit.processor.tokenizer.decode(inputs["input_ids"][0])[:11])
        return kit.plain(inputs)

    fingerprints = []
    for date in ("2024-07-26", "2025-03-01"):
        kit = Kit(model, dated)
        kit.ask = lambda inputs, kit=kit: ask(kit, inputs)
        vlm = InterceptedVLM(kit, name="kit", weights="seed 1", image_preparation="native", date=date)
        vlm.evidence([REQUEST])
        fingerprints.append(vlm.fingerprint)
    assert seen == ["26 Jul 2024", "01 Mar 2025"]
    assert [fingerprint["prompt"] for fingerprint in fingerprints] == [{"date": "2024-07-26"}, {"date": "2025-03-01"}]
    assert dated.chat_template.startswith("{{ strftime_now")
    assert "prompt" not in made().fingerprint
