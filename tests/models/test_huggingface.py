"""Every family of tiny random models through the whole path, against a slow obvious implementation."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from lad_eval.errors import DataError, OutOfMemoryError, UnsupportedModelError, UserError
from lad_eval.evidence.table import Evidence
from lad_eval.methods.replying import parse_reply
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.models.random import FAMILIES
from tests.models.requests import Noise, make_requests

STYLES = ("1..", "A..", "a..", "I..", "first..")


def slow_log_probs(model, processor, request):
    """One forward pass of prompt + prefix for every step of every candidate; nothing is reused."""
    tokenizer = processor.tokenizer
    ask = {"role": "user", "content": [*[{"type": "image"}] * len(request.images), {"type": "text", "text": request.question}]}
    prompt = processor.apply_chat_template([ask], add_generation_prompt=True)
    special = not (tokenizer.bos_token and prompt.startswith(tokenizer.bos_token))
    sequences = []
    for name in request.identifiers:
        reply = {"role": "assistant", "content": [{"type": "text", "text": name}]}
        whole = processor.apply_chat_template([ask, reply])
        lead = whole.removeprefix(prompt).partition(name)[0] if whole.startswith(prompt) else ""
        text = prompt + lead + name
        before, after = (tokenizer(t, add_special_tokens=special)["input_ids"] for t in (prompt, text))
        sequences.append(after[len(before) :])
    images = [[source.load() for source in request.images]]
    tiles = {"max_patches": max(1, 28 // len(request.images))} if model.config.model_type == "internvl" else {}
    inputs = dict(processor(text=[prompt], images=images, add_special_tokens=special, return_tensors="pt", **tiles))
    inputs.pop("labels", None)
    inputs = {k: v.to(model.dtype) if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in inputs.items()}
    text_type = 1 if model.config.model_type == "paligemma" else 0
    seen = {}

    def logits_after(prefix):
        if prefix not in seen:
            longer, more = dict(inputs), len(prefix)
            fillings = {
                "input_ids": prefix,
                "attention_mask": [1] * more,
                "token_type_ids": [text_type] * more,
                "mm_token_type_ids": [0] * more,
            }
            for key, filling in fillings.items():
                if key in longer:
                    longer[key] = torch.cat([longer[key], torch.tensor([list(filling)], dtype=longer[key].dtype)], dim=1)
            with torch.no_grad():
                seen[prefix] = model(**longer, use_cache=False).logits[0, -1].double()
        return seen[prefix]

    ends = [model.generation_config.eos_token_id]
    result = []
    for candidate in map(tuple, sequences):
        total = 0.0
        for depth in range(len(candidate) + 1):
            prefix = candidate[:depth]
            going_on = sorted({s[depth] for s in sequences if len(s) > depth and tuple(s[:depth]) == prefix})
            options = {token: [token] for token in going_on}
            if list(prefix) in sequences:
                options["end"] = ends
            logits = logits_after(prefix) if len(options) > 1 else None
            chosen = candidate[depth] if depth < len(candidate) else "end"
            if logits is not None:
                total += float(logits[options[chosen]].logsumexp(0) - logits[[*going_on, *options.get("end", [])]].logsumexp(0))
        result.append(total)
    return np.array(result)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_equals_single_requests_and_the_slow_way(vlm, tiny, family):
    """Captions of unequal lengths, so that rows are padded; 12 candidates, so that the prefix "1" reuses the prompt's cache."""
    requests = make_requests(12, 3)
    barrier = vlm(family, batch_size=3).evidence(requests)
    single = Evidence.concatenate([vlm(family, batch_size=1).evidence([r]) for r in requests])
    np.testing.assert_allclose(barrier.log_probs, single.log_probs, atol=1e-4)
    np.testing.assert_allclose(barrier.attention, single.attention, atol=1e-5)
    np.testing.assert_allclose(barrier.attention_delimited, single.attention_delimited, atol=1e-5)
    np.testing.assert_allclose(np.exp(barrier.log_probs).sum(axis=1), 1.0, atol=1e-9)
    assert barrier.forward_passes.tolist() == [2, 2, 2]
    assert barrier.key.tolist() == [r.key for r in requests]
    np.testing.assert_allclose(barrier.log_probs[0], slow_log_probs(*tiny(family), requests[0]), atol=1e-4)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("family", ["qwen2.5-vl", "llava-onevision", "qwen3.5"])
def test_twenty_five_candidates_equal_the_slow_way(vlm, tiny, family, style):
    request = make_requests(25, 1, style, size=(28, 28))[0]
    found = vlm(family).evidence([request]).log_probs[0]
    np.testing.assert_allclose(found, slow_log_probs(*tiny(family), request), atol=2e-4)
    assert np.exp(found).sum() == pytest.approx(1.0, abs=1e-9)


def test_up_to_nine_candidates_take_one_pass_and_no_cache(vlm):
    model = vlm("qwen2.5-vl", batch_size=2)
    calls = []
    hook = model.model.register_forward_pre_hook(lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True)
    evidence = model.evidence(make_requests(9, 2))
    hook.remove()
    assert [call["use_cache"] for call in calls] == [False]
    assert evidence.forward_passes.tolist() == [1, 1]


def test_twelve_candidates_prefill_the_prompt_once(vlm):
    model = vlm("qwen2.5-vl", batch_size=2)
    calls = []
    hook = model.model.register_forward_pre_hook(lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True)
    model.evidence(make_requests(12, 2))
    hook.remove()
    prompts, prefixes = (call["input_ids"].shape for call in calls)
    assert prompts[1] > 50
    assert prefixes == (2, 1)


def test_many_prefixes_are_run_in_parts(vlm, monkeypatch):
    requests = make_requests(25, 2, "I..", size=(28, 28))
    model = vlm("qwen3.5", batch_size=2)
    whole = model.evidence(requests)
    monkeypatch.setattr("lad_eval.models.inference.continuation._ROWS", 5)
    np.testing.assert_allclose(model.evidence(requests).log_probs, whole.log_probs, atol=1e-5)


def test_every_end_of_sequence_id_counts(vlm, tiny, monkeypatch):
    request = make_requests(12, 1)[0]
    model = vlm("qwen2.5-vl")
    one = np.exp(model.evidence([request]).log_probs[0])
    first = model.model.generation_config.eos_token_id
    monkeypatch.setattr(model.model.generation_config, "eos_token_id", [first, 300])
    two = np.exp(model.evidence([request]).log_probs[0])
    assert two[0] > one[0]
    np.testing.assert_allclose(two[1:9], one[1:9], rtol=1e-6)
    np.testing.assert_allclose(two[0] + two[9:].sum(), one[0] + one[9:].sum(), rtol=1e-6)
    np.testing.assert_allclose(two[9:] / two[9], one[9:] / one[9], rtol=1e-5)


def test_rows_come_in_the_order_asked_and_equal_requests_get_a_row_each(vlm):
    requests = make_requests(4, 3)
    order = [requests[i] for i in (1, 0, 2, 1)]
    evidence = vlm("qwen2.5-vl", batch_size=2).evidence(order)
    assert evidence.sample_id.tolist() == ["s1", "s0", "s2", "s1"]
    assert evidence.gold_position.tolist() == [r.gold_position for r in order]
    assert evidence.perm.tolist() == [list(r.permutation.order) for r in order]
    np.testing.assert_allclose(evidence.log_probs[0], evidence.log_probs[3], atol=1e-5)


def test_batches_are_handed_over_as_they_are_done(vlm):
    model = vlm("qwen2.5-vl", batch_size=2)
    calls = []
    hook = model.model.register_forward_hook(lambda *_: calls.append(1))
    batches = model.evidence_batches(make_requests(4, 5))
    assert len(next(batches)) == 2
    assert len(calls) == 1
    assert sum(len(batch) for batch in batches) == 3
    hook.remove()


def test_too_large_batches_are_halved_for_good(vlm, caplog):
    model = vlm("qwen2.5-vl", batch_size=8)
    sizes = []

    def refuse(module, args, kwargs):
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = model.model.register_forward_pre_hook(refuse, with_kwargs=True)
    requests = make_requests(4, 5)
    evidence = model.evidence(requests)
    model.evidence(requests[:2])
    hook.remove()
    assert sizes == [5, 2, 2, 1, 2]
    assert "Out of memory with a batch of 5; continuing with 2." in caplog.text
    np.testing.assert_allclose(evidence.log_probs, vlm("qwen2.5-vl", batch_size=1).evidence(requests).log_probs, atol=1e-4)


def test_no_memory_for_a_single_request_is_said_in_one_line(vlm):
    model = vlm("qwen2.5-vl", batch_size=2)

    def refuse(module, args):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")

    hook = model.model.register_forward_pre_hook(refuse)
    try:
        with pytest.raises(OutOfMemoryError, match="Out of memory with a single request"):
            model.evidence(make_requests(4, 2))
    finally:
        hook.remove()


def test_other_errors_of_a_model_are_not_taken_for_memory(vlm):
    model = vlm("qwen2.5-vl", batch_size=2)

    def refuse(module, args):
        raise RuntimeError("something else")

    hook = model.model.register_forward_pre_hook(refuse)
    try:
        with pytest.raises(RuntimeError, match="something else"):
            model.evidence(make_requests(4, 2))
    finally:
        hook.remove()


@pytest.mark.parametrize("family", ["qwen2.5-vl", "llava-1.5"])
def test_replies_do_not_depend_on_the_batch(vlm, family):
    requests = make_requests(4, 3)
    barrier = vlm(family, batch_size=3).generate(requests, max_new_tokens=6)
    assert barrier == [vlm(family, batch_size=1).generate([r], max_new_tokens=6)[0] for r in requests]
    assert len(barrier) == 3


def test_replies_ignore_the_penalties_of_the_hubs_generation_configuration(vlm, monkeypatch):
    requests = make_requests(4, 1)
    model = vlm("qwen2.5-vl")
    plain = model.generate(requests, max_new_tokens=12)
    monkeypatch.setattr(model.model.generation_config, "repetition_penalty", 50.0)
    monkeypatch.setattr(model.model.generation_config, "do_sample", True)
    assert model.generate(requests, max_new_tokens=12) == plain


def test_a_thought_that_the_template_opens_is_part_of_the_reply(vlm, tiny):
    processor = copy.copy(tiny("qwen2.5-vl")[1])
    processor.chat_template += "{% if add_generation_prompt %}<think>\n{% endif %}"
    [reply] = HuggingFaceVLM(tiny("qwen2.5-vl")[0], processor).generate(make_requests(4, 1), max_new_tokens=3)
    assert reply.startswith("<think>")
    assert parse_reply(f"{reply} 2", ("1", "2"), thoughtful=True) is None
    assert not vlm("qwen2.5-vl").generate(make_requests(4, 1), max_new_tokens=3)[0].startswith("<think>")


def test_the_protocol_squashes_every_image_to_one_size(vlm):
    wide, square = make_requests(4, 1, size=(112, 28))[0], make_requests(4, 1, size=(56, 56))[0]
    evidence = {
        preparation: [int(model._prepare([r]).inputs["input_ids"].shape[1]) for r in (wide, square)]
        for preparation in ("protocol", "native")
        if (model := vlm("qwen2.5-vl", image_preparation=preparation))
    }
    assert evidence["protocol"][0] == evidence["protocol"][1]
    assert vlm("qwen2.5-vl", image_preparation="protocol")._prepare.images.get(Noise(0, (112, 28))).image.size == (336, 336)


@pytest.mark.parametrize(("family", "remembers"), [("qwen2.5-vl", True), ("llava-1.5", True), ("llava-onevision", False)])
def test_what_became_of_an_image_is_remembered_only_where_that_changes_nothing(vlm, family, remembers):
    requests = make_requests(4, 4)
    turned = [dataclasses.replace(r, images=r.images[1:] + r.images[:1]) for r in requests]
    model = vlm(family, batch_size=4)
    model.evidence(requests)
    model.evidence(requests)
    prepare = model._prepare
    assert (prepare._form(requests) not in prepare._differing) == remembers
    calls = []

    class Counted:
        def __init__(self, inner):
            self._processor = inner

        def __getattr__(self, name):
            return getattr(self._processor, name)

        def __call__(self, *args, **kwargs):
            calls.append(args)
            return self._processor(*args, **kwargs)

    prepare._parts._processor = prepare._stand_in.inner = Counted(prepare._image_processor)
    again = model.evidence(turned)
    assert len(calls) == (0 if remembers else 1)
    np.testing.assert_array_equal(again.log_probs, vlm(family, batch_size=4).evidence(turned).log_probs)


def test_bad_input_is_refused_in_one_line(vlm, tiny):
    model = vlm("qwen2.5-vl")
    with pytest.raises(UserError, match="no requests"):
        model.evidence([])
    with pytest.raises(UserError, match="the same number of images"):
        model.evidence([*make_requests(4, 1), *make_requests(3, 1)])
    with pytest.raises(UserError, match="batch size must be a positive whole number or 'auto', not 0"):
        vlm("qwen2.5-vl", batch_size=0)
    with pytest.raises(UserError, match="Unknown image preparation 'square': use 'protocol' or 'native' or 'pad'"):
        vlm("qwen2.5-vl", image_preparation="square")
    spoilt = dataclasses.replace(make_requests(4, 1)[0], question="what is <|image_pad|>?")
    with pytest.raises(DataError, match=r"Sample s0: its question becomes '<\|image_pad\|>', a control token or"):
        model.evidence([spoilt])


def test_an_unsupported_model_fails_before_any_data_is_read(tiny):
    class NoTemplate:
        def __init__(self, processor):
            self.tokenizer, self.image_processor, self.chat_template = processor.tokenizer, processor.image_processor, None

    model, processor = tiny("qwen2.5-vl")
    with pytest.raises(UnsupportedModelError, match="no chat template"):
        HuggingFaceVLM(model, NoTemplate(processor))


def test_logits_that_are_not_finite_are_an_error(vlm):
    model = vlm("qwen2.5-vl")

    def spoil(module, args, output):
        output.logits[:] = float("nan")

    hook = model.model.register_forward_hook(spoil)
    try:
        with pytest.raises(UnsupportedModelError, match=r"not finite in torch\.float32"):
            model.evidence(make_requests(4, 1))
    finally:
        hook.remove()
