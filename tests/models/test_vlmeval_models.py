"""VLMEvalKit's own classes, run end to end, their evidence checked against a slow obvious reading of their inputs."""

import copy
import dataclasses
from contextlib import ExitStack
from unittest.mock import patch

import numpy as np
import pytest
import torch

from examples.lad_eval_example.lad_eval_example.evened import Evened
from lad_eval.errors import EvidenceError, UnsupportedModelError, UserError
from lad_eval.models.vlmeval import InterceptedVLM
from lad_eval.models.vlmeval.images import ImageFacts, spans_in
from lad_eval.models.vlmeval.kit import kit
from tests.models import internvl_shaped
from tests.models.requests import Noise, make_requests
from tests.models.vlmeval_classes import on_the_cpu, save

DATASET = "LADRetrieval"

# Class, family of the tiny model, name of its folder (some classes read it), what its prompt leaves before an answer.
CLASSES = [
    ("Qwen2VLChat", "qwen2-vl", "model", ""),
    ("Qwen2VLChat", "qwen2.5-vl", "qwen2.5", ""),
    ("Qwen3VLChat", "qwen3-vl", "model", ""),
    ("LLaVA_OneVision_HF", "llava-onevision", "model", ""),
    ("SmolVLM", "smolvlm", "model", " "),
    ("SmolVLM", "idefics3", "model", " "),
    ("SmolVLM2", "smolvlm", "model", " "),
    ("IDEFICS2", "idefics3", "model", " "),
    ("Gemma3", "gemma3", "model", ""),
    ("GraniteVision3", "llava-next", "model", ""),
    ("LFM2VL", "lfm2-vl", "model", ""),
]
# Other classes around Qwen2.5-VL, whose prompts differ.
QWEN_CLASSES = ["VLMR1Chat", "VLAAThinkerChat", "WeThinkVL", "QTuneVL", "CoVTChat"]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """build(class name, family, folder name): VLMEvalKit's object; the tiny models are saved once."""
    saved, vlm = {}, kit("vlmeval.vlm")

    def make(name, family, folder="model"):
        if (family, folder) not in saved:
            path = tmp_path_factory.mktemp("weights") / folder
            path.mkdir()
            saved[family, folder] = save(family, path)
        return getattr(vlm, name)(model_path=saved[family, folder])

    with on_the_cpu():
        yield make


def looked_at(inner, **options):
    return InterceptedVLM(inner, **{"name": type(inner).__name__, "dataset": DATASET, "image_preparation": "native", **options})


def given_to_generate(vlm, message):
    """What the class itself passes to its model."""
    seen = {}

    def note(**given):
        seen.update(given)
        ids = given["input_ids"]
        return torch.cat([ids, ids[:, -1:]], dim=1)

    with patch.object(vlm.model, "generate", note, create=True):
        vlm.inner.generate(message=copy.deepcopy(message), dataset=DATASET)
    forward = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "spatial_shapes"}
    return {k: v for k, v in seen.items() if k in forward or "pixel" in k or "image" in k}


def longer(inputs, tokens):
    more, shape = torch.tensor([tokens], dtype=torch.long), inputs["input_ids"].shape
    fill = {"input_ids": more, "attention_mask": torch.ones_like(more)}
    return {
        k: torch.cat([v, fill.get(k, torch.zeros_like(more)).to(v)], dim=1) if getattr(v, "shape", None) == shape else v
        for k, v in inputs.items()
    }


def slow(model, tokenizer, inputs, lead, identifiers, image_token):
    """Whole passes with eager attention, and every token of every candidate by itself."""
    start = tokenizer(lead, add_special_tokens=False)["input_ids"] if lead else []
    names = [tokenizer(name, add_special_tokens=False)["input_ids"] for name in identifiers]
    before = getattr(model.config, "_attn_implementation", "sdpa")
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            first = model(**longer(inputs, start), use_cache=False, output_attentions=True)
            after = {(): first.logits[0, -1].double()}
            for name in names:
                for depth in range(1, len(name)):
                    whole = longer(inputs, [*start, *name[:depth]])
                    after[tuple(name[:depth])] = model(**whole, use_cache=False).logits[0, -1].double()
    finally:
        model.set_attn_implementation(before)
    end, log_probs = model.generation_config.eos_token_id, []
    for name in names:
        total = 0.0
        for depth in range(len(name) + 1):
            prefix = tuple(name[:depth])
            choices = sorted({n[depth] for n in names if len(n) > depth and tuple(n[:depth]) == prefix})
            choices += [end] if list(prefix) in names and choices else []
            if len(choices) > 1:
                chosen = name[depth] if depth < len(name) else end
                total += float(after[prefix][chosen] - after[prefix][choices].logsumexp(0))
        log_probs.append(total)
    where = (inputs["input_ids"][0] == image_token).nonzero()[:, 0].reshape(4 if len(identifiers) == 4 else len(identifiers), -1)
    rows = torch.stack([layer[0, :, -1].mean(0) for layer in first.attentions if layer is not None])
    return np.array(log_probs), torch.stack([rows[:, s[0] : s[-1] + 1].sum(-1) for s in where], dim=1).double().numpy()


@pytest.mark.parametrize(("name", "family", "folder", "lead"), CLASSES)
def test_a_class_is_looked_at_while_it_answers(build, name, family, folder, lead):
    inner = build(name, family, folder)
    vlm = looked_at(inner)
    before = dict(vars(inner.model))
    request = make_requests(4, 1)[0]
    message = vlm.messages.of(request)
    text, evidence = vlm.answer(message, request, lambda evidence: 2)
    assert vars(inner.model) == before
    inputs = given_to_generate(vlm, message)
    token = vlm.model.config.image_token_id
    logs, attention = slow(vlm.model, vlm.processor.tokenizer, inputs, lead, request.identifiers, token)
    np.testing.assert_allclose(evidence.log_probs[0], logs, atol=1e-4)
    np.testing.assert_allclose(evidence.attention[0], attention, atol=2e-5)
    assert "3" in text
    assert evidence.forward_passes.tolist() == [1]


@pytest.mark.parametrize("name", QWEN_CLASSES)
def test_other_classes_around_one_model(build, name):
    vlm = looked_at(build(name, "qwen2.5-vl", "qwen2.5"))
    request = make_requests(4, 1)[0]
    text, evidence = vlm.answer(vlm.messages.of(request), request)
    assert text == request.identifiers[int(evidence.log_probs[0].argmax())]
    np.testing.assert_allclose(np.exp(evidence.log_probs).sum(), 1.0, atol=1e-9)


def test_identifiers_of_two_tokens_go_on_from_the_cache(build):
    vlm = looked_at(build("Qwen2VLChat", "qwen2.5-vl", "qwen2.5"))
    request = make_requests(12, 1)[0]
    evidence = vlm.evidence([request])
    inputs = given_to_generate(vlm, vlm.messages.of(request))
    logs, _ = slow(vlm.model, vlm.processor.tokenizer, inputs, "", request.identifiers, vlm.model.config.image_token_id)
    np.testing.assert_allclose(evidence.log_probs[0], logs, atol=1e-4)
    assert evidence.forward_passes.tolist() == [2]
    with patch("lad_eval.models.vlmeval.passes._continues", return_value=False):
        anew = vlm.evidence([request])
    np.testing.assert_allclose(anew.log_probs, evidence.log_probs, atol=1e-4)
    assert anew.forward_passes.tolist() == [2]


@pytest.mark.parametrize(
    ("name", "family"),
    [("Qwen2VLChat", "qwen2-vl"), ("SmolVLM", "idefics3"), ("LLaVA_OneVision_HF", "llava-onevision"), ("LFM2VL", "lfm2-vl")],
)
def test_images_of_unequal_sizes(build, name, family):
    """Spans are told from the prompt; here the processor is asked how many tokens each image becomes."""
    vlm = looked_at(build(name, family))
    request = make_requests(3, 1)[0]
    images = tuple(Noise(i, size) for i, size in enumerate([(56, 56), (112, 56), (56, 168)]))
    message = vlm.messages.of(dataclasses.replace(request, images=images))
    evidence = vlm.evidence_of([message], [request])
    assert (evidence.attention > 0).all()
    inputs = given_to_generate(vlm, message)
    found = spans_in(inputs["input_ids"], inputs, [vlm.model], vlm.processor, ImageFacts(3, False), name).image[0].tolist()
    token = vlm.processor.image_token
    asked = {"text": [token * 3], "images": [source.load() for source in images], "return_text_replacement_offsets": True}
    parts = vlm.processor(**asked, return_tensors="pt")["text_replacement_offsets"][0]
    positions = (inputs["input_ids"][0] == vlm.model.config.image_token_id).nonzero()[:, 0].tolist()
    for (first, end), part in zip(found, parts, strict=True):
        mine, positions = positions[: part["replacement"].count(token)], positions[part["replacement"].count(token) :]
        assert (first, end) == (mine[0], mine[-1] + 1)
    assert not positions


def test_the_answers_are_those_of_our_own_class(build, tiny):
    """The same pixels and the same prompt, once through VLMEvalKit's class and once through ours."""
    from lad_eval.models.huggingface import HuggingFaceVLM

    for name, family in (("Qwen2VLChat", "qwen2-vl"), ("Gemma3", "gemma3")):
        inner = build(name, family)
        inner.system_prompt = None  # ours has none
        requests = make_requests(4, 2)
        theirs = looked_at(inner).evidence(requests)
        ours = HuggingFaceVLM(inner.model, inner.processor, weights="same", image_preparation="native").evidence(requests)
        np.testing.assert_allclose(theirs.log_probs, ours.log_probs, atol=1e-4)
        np.testing.assert_allclose(theirs.attention, ours.attention, atol=1e-5)
        np.testing.assert_allclose(theirs.attention_delimited, ours.attention_delimited, atol=1e-5)


def test_the_class_writes_greedy_text(build):
    vlm = looked_at(build("Qwen2VLChat", "qwen2-vl"))
    request = make_requests(4, 1)[0]
    first, again = (vlm.generate([request], max_new_tokens=3)[0] for _ in range(2))
    assert first == again
    inputs = given_to_generate(vlm, vlm.messages.of(request))
    written = vlm.model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert first == vlm.processor.tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_a_class_that_shows_one_image_only_is_refused(build):
    vlm = looked_at(build("PaliGemma", "paligemma"))
    with pytest.raises(UnsupportedModelError, match=r"nothing says which of them belong to which of 4 images\.$"):
        vlm.evidence(make_requests(4, 1))


def test_a_prompt_that_opens_a_thought_is_refused(build):
    vlm = looked_at(build("TreeVGR", "qwen2.5-vl", "qwen2.5"))
    with pytest.raises(UnsupportedModelError, match="its prompt starts the reasoning"):
        vlm.evidence(make_requests(4, 1))


@pytest.fixture(scope="module")
def internvl(tmp_path_factory):
    """VLMEvalKit's InternVLChat, by its own constructor, around remote code of InternVL's form."""
    model, tokenizer = internvl_shaped.make()
    module = kit("vlmeval.vlm.internvl.internvl_chat")
    loaded = {module.AutoModel: model, module.AutoTokenizer: tokenizer}
    with on_the_cpu():
        with ExitStack() as stack:
            for kind, made in loaded.items():
                stack.enter_context(patch.object(kind, "from_pretrained", lambda *args, made=made, **kwargs: made))
            inner = module.InternVLChat(model_path="shaped", version="V2.0")
        yield inner


def test_remote_code_that_gives_embeddings_to_its_language_model(internvl):
    vlm = looked_at(internvl)
    model, before = internvl.model, [dict(vars(module)) for module in internvl.model.modules()]
    request = make_requests(4, 1)[0]
    text, evidence = vlm.answer(vlm.messages.of(request), request, lambda evidence: 1)
    assert text == "2"
    del model.img_context_token_id  # its own `chat` sets it
    assert [dict(vars(module)) for module in model.modules()] == before
    seen = {}
    with patch.object(model, "generate", lambda **given: seen.update(given) or given["input_ids"], create=True):
        internvl.generate(message=vlm.messages.of(request), dataset=DATASET)
    embeds = model.embed(seen["pixel_values"], seen["input_ids"])
    model.language_model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model.language_model(inputs_embeds=embeds, output_attentions=True)
    model.language_model.set_attn_implementation("sdpa")
    names = [internvl.tokenizer(name)["input_ids"][0] for name in request.identifiers]
    np.testing.assert_allclose(evidence.log_probs[0], output.logits[0, -1, names].double().log_softmax(0), atol=1e-4)
    ids = seen["input_ids"][0]
    starts, ends = ((ids == internvl.tokenizer.convert_tokens_to_ids(t)).nonzero()[:, 0] for t in ("<img>", "</img>"))
    rows = torch.stack([layer[0, :, -1].mean(0) for layer in output.attentions])
    plain = torch.stack([rows[:, a + 1 : b].sum(-1) for a, b in zip(starts, ends, strict=True)], dim=1)
    np.testing.assert_allclose(evidence.attention[0], plain, atol=2e-5)
    delimited = torch.stack([rows[:, a : b + 1].sum(-1) for a, b in zip(starts, ends, strict=True)], dim=1)
    np.testing.assert_allclose(evidence.attention_delimited[0], delimited, atol=2e-5)


def test_remote_code_goes_on_with_longer_identifiers_and_writes_text(internvl):
    vlm = looked_at(internvl)
    request = make_requests(12, 1)[0]
    cached = vlm.evidence([request])
    with patch("lad_eval.models.vlmeval.passes._continues", return_value=False):
        np.testing.assert_allclose(vlm.evidence([request]).log_probs, cached.log_probs, atol=1e-4)
    assert vlm.generate([request], max_new_tokens=2) == vlm.generate([request], max_new_tokens=2)


def test_images_joined_into_one_are_refused(internvl):
    vlm = looked_at(internvl)
    internvl.version = "V1.5"
    try:
        with pytest.raises(UnsupportedModelError, match="image tokens in 1 runs"):
            vlm.evidence(make_requests(4, 1))
    finally:
        internvl.version = "V2.0"


def test_replies_are_drawn_and_evidence_changes_under_an_intervention_as_in_our_own_class(build):
    from lad_eval.attention.interventions import Sofa
    from lad_eval.evidence.replies import Decoding
    from lad_eval.models.huggingface import HuggingFaceVLM

    inner = build("Qwen2VLChat", "qwen2-vl")
    theirs = looked_at(inner)
    ours = HuggingFaceVLM(inner.model, inner.processor, weights="same", image_preparation="native")
    requests, decoding = make_requests(4, 2), Decoding(samples=2, temperature=0.7, max_new_tokens=3)
    plain = theirs.evidence(requests)
    drawn = [
        {r.key: (r.texts, r.forward_passes) for b in vlm.reply_batches(requests, decoding) for r in b} for vlm in (theirs, ours)
    ]
    assert drawn[0] == drawn[1]
    with theirs.under(Sofa(sigma=0.9, every=1)), ours.under(Sofa(sigma=0.9, every=1)):
        assert theirs.fingerprint["intervention"] == ours.fingerprint["intervention"]
        found, expected = theirs.evidence(requests), ours.evidence(requests)
        written = [vlm.generate(requests, max_new_tokens=3) for vlm in (theirs, ours)]
    np.testing.assert_allclose(found.log_probs, expected.log_probs, atol=1e-4)
    np.testing.assert_allclose(found.attention, expected.attention, atol=1e-5)
    assert np.abs(found.log_probs - plain.log_probs).max() > 1e-3
    assert written[0] == written[1]
    assert "intervention" not in theirs.fingerprint


@pytest.mark.parametrize(
    ("name", "family", "folder"),
    [("Qwen2VLChat", "qwen2.5-vl", "qwen2.5"), ("LLaVA_OneVision_HF", "llava-onevision", "model"), ("Gemma3", "gemma3", "model")],
)
def test_an_intervention_learns_of_the_prompts_of_a_class(build, name, family, folder):
    """Of the prompts that the class itself makes, read up to where the candidates begin."""
    inner = build(name, family, folder)
    vlm = looked_at(inner)
    requests = [dataclasses.replace(request, split="calibration") for request in make_requests(4, 3)]
    before = dict(vars(inner.model))
    learned = vlm.calibrated(Evened(strength=2.0), requests)
    assert vars(inner.model) == before
    [state] = learned.learned_states
    evidence = vlm.evidence(requests)
    np.testing.assert_allclose(state.arrays["attention"], evidence.attention.mean(axis=(0, 1)), rtol=1e-4)
    assert state.passes == 3
    assert state.sample_ids == ("s0", "s1", "s2")
    assert state.origin["model"] == vlm.fingerprint
    others = make_requests(4, 5)[3:]
    plain = vlm.evidence(others)
    with vlm.under(learned):
        changed = vlm.evidence(others)
        assert changed.fingerprint["intervention"]["learned"] == state.digest
        with pytest.raises(EvidenceError, match="1 evaluated samples were also calibrated on by evened"):
            vlm.evidence(make_requests(4, 1))
    assert np.abs(changed.log_probs - plain.log_probs).max() > 1e-6
    with vlm.under(Evened()), pytest.raises(UserError, match="evened has learned nothing yet; calibrate it"):
        vlm.evidence(others)


def test_an_intervention_learns_of_remote_code_too(internvl):
    remote = looked_at(internvl)
    requests = [dataclasses.replace(request, split="calibration") for request in make_requests(4, 2)]
    [state] = remote.calibrated(Evened(), requests).learned_states
    evidence = remote.evidence(requests)
    np.testing.assert_allclose(state.arrays["attention"], evidence.attention.mean(axis=(0, 1)), rtol=1e-4)


def test_labels_are_refused_as_a_class_may_move_text(build):
    model = looked_at(build("Qwen2VLChat", "qwen2.5-vl"))
    requests = [dataclasses.replace(request, labelling="order") for request in make_requests(3, 1)]
    for ask in (model.check_prompts, model.evidence, model.generate):
        with pytest.raises(UnsupportedModelError, match=r"^Qwen2VLChat is run by a class of VLMEvalKit.*leave out labelled\.$"):
            ask(requests)
