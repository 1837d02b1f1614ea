"""Sampled replies from one prefill are those of a prefill for each, and images are encoded once for all orders."""

import pytest
import torch

from lad_eval.attention.hooks import decoder_layers
from lad_eval.evidence.replies import Decoding
from lad_eval.methods import make_method
from lad_eval.models.inference import replies as module
from lad_eval.models.inference.continuation import repeated
from lad_eval.models.inference.generation import GumbelSampler
from lad_eval.models.inference.replies import repeats
from tests.models.requests import make_requests

SAMPLED = Decoding(samples=5, temperature=1.3, max_new_tokens=6)
FAMILIES = (
    "qwen2.5-vl",  # M-RoPE
    "llava-1.5",
    "internvl",
    pytest.param("gemma3", marks=pytest.mark.slow),  # sliding windows
    pytest.param("gemma4", marks=pytest.mark.slow),  # layers that share keys
    "qwen3.5",  # a hybrid
    pytest.param("lfm2-vl", marks=pytest.mark.slow),  # a hybrid
    pytest.param("llama4", marks=pytest.mark.slow),  # attention in chunks
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("qwen3-vl-moe", "mistral3", "paligemma", "minicpm-v-4.6", "molmo2")
    ),
)


def written(model, requests, decoding=SAMPLED):
    replies = [reply for batch in model.reply_batches(requests, decoding) for reply in batch]
    return {reply.key: (reply.texts, reply.forward_passes) for reply in replies}


def one_by_one(model, inputs, config, decoding, keys):
    """Each reply with a prefill of its own, and without remembered images."""
    start, each = inputs["input_ids"].shape[1], []
    for sample in range(decoding.samples):
        drawing = [GumbelSampler(decoding, [(key, sample) for key in keys])]
        each.append(model.generate(**inputs, generation_config=config, logits_processor=drawing)[:, start:].tolist())
    return each


@pytest.fixture
def plain(monkeypatch):
    """Replies of a model, each with a prefill of its own."""

    def write(model, requests):
        with monkeypatch.context() as changed:
            changed.setattr("lad_eval.models.huggingface.write_replies", one_by_one)
            changed.setattr(model, "_features", lambda inputs, images, move: inputs)
            return written(model, requests)

    return write


@pytest.fixture
def prefills(monkeypatch):
    """Numbers of tokens of the passes over several tokens, which are those over prompts."""

    def count(model):
        passes = []
        layer = decoder_layers(model.model)[0]
        hook = layer.register_forward_pre_hook(lambda module, args: passes.append(args[0].shape[1]))
        monkeypatch.setattr(model, "unhook", hook.remove, raising=False)
        return lambda: sum(tokens > 1 for tokens in passes)

    return count


@pytest.mark.parametrize("family", FAMILIES)
def test_one_prefill_gives_the_replies_of_one_for_each(vlm, plain, prefills, family):
    model, requests = vlm(family, batch_size=2), make_requests(4, 3)  # of unequal lengths, in two batches
    counted = prefills(model)
    replies = written(model, requests)
    assert counted() == 2
    model.unhook()
    assert replies == plain(model, requests)
    assert len({text for texts, _ in replies.values() for text in texts}) > 3


def test_several_rounds_where_all_replies_do_not_fit_in_one(vlm, plain, monkeypatch):
    model, requests = vlm("qwen2.5-vl", batch_size=2), make_requests(4, 3)
    monkeypatch.setattr(module, "ROWS", 4)
    assert written(model, requests) == plain(model, requests)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param("qwen2.5-vl", "sofa", marks=pytest.mark.slow),
        ("qwen2.5-vl", "sofa+fastv(keep=2, layer=1)"),
        pytest.param("llava-1.5", "capl", marks=pytest.mark.slow),
        pytest.param("gemma3", "fastv(keep=0.5, layer=1)", marks=pytest.mark.slow),
        pytest.param("gemma3", "fastv(keep=0.5, layer=1, how=mask)", marks=pytest.mark.slow),
        pytest.param("lfm2-vl", "capl", marks=pytest.mark.slow),
        pytest.param("gemma4", "sparsevlm", marks=pytest.mark.slow),
        pytest.param("qwen2.5-vl", "fastv(keep=0.5, layer=1)", marks=pytest.mark.slow),
    ],
)
def test_interventions_act_on_replies_from_one_prefill(vlm, plain, family, name):
    model, requests = vlm(family, batch_size=2), make_requests(4, 3)
    unchanged = written(model, requests)
    with model.under(make_method(f"{name}+generate").condition.intervention):
        replies = written(model, requests)
        assert replies == plain(model, requests)
    assert replies != unchanged


@pytest.mark.parametrize("fault", ["refused", "unchanged", "no layers", "own generate"])
def test_a_cache_that_cannot_be_repeated_is_not_used(vlm, plain, monkeypatch, fault):
    model, requests = vlm("qwen2.5-vl", batch_size=2), make_requests(4, 2)
    expected = plain(model, requests)
    if fault == "no layers":
        monkeypatch.setattr(module, "_cache_name", lambda prefill: None)
    elif fault == "own generate":
        inherited = type(model.model).generate
        monkeypatch.setattr(type(model.model), "generate", lambda self, **options: inherited(self, **options))
        monkeypatch.setattr(module, "_Sampling", None)
    else:
        result = {"refused": lambda cache, rows: object(), "unchanged": lambda cache, rows: cache}[fault]
        monkeypatch.setattr(module, "repeated", result)
    assert written(model, requests) == expected
    assert "_prefill" not in vars(model.model)


def test_where_memory_does_not_suffice_fewer_replies_are_written_at_once(vlm, plain, monkeypatch):
    model, requests = vlm("qwen2.5-vl", batch_size=2), make_requests(4, 2)
    expected, rows_tried = plain(model, requests), []

    def limited(cache, rows):
        rows_tried.append(len(rows))
        if len(rows) > 4:
            raise MemoryError("out of memory")
        return repeated(cache, rows)

    monkeypatch.setattr(module, "repeated", limited)
    assert written(model, requests) == expected
    assert rows_tried == [10, 4, 4, 2]
    assert model.batch_size == 2


def test_the_check_of_a_cache_sees_whether_every_state_was_repeated(vlm):
    model = vlm("lfm2-vl")
    inputs = model._to_device(model._prepare(make_requests(4, 1), for_candidates=False).inputs)
    with torch.inference_mode():
        cache = model.model(**inputs, use_cache=True).past_key_values
    rows = torch.zeros(3, dtype=torch.long)
    assert repeats(cache, repeated(cache, rows), rows)
    assert not repeats(cache, cache, rows)
    partly = repeated(cache, rows)
    partly.layers[-1] = cache.layers[-1]
    assert not repeats(cache, partly, rows)
    assert not repeats(object(), object(), rows)


def test_an_image_is_encoded_once_for_all_orders_and_replies(vlm, monkeypatch):
    model, encoded = vlm("qwen2.5-vl"), []
    encode = model._features._encode
    monkeypatch.setattr(
        model._features, "_encode", lambda **arguments: encoded.extend(arguments["image_grid_thw"]) or encode(**arguments)
    )
    [request] = make_requests(4, 1)
    orders = [request.reordered(order) for order in request.permutation.random_orders(5)]
    written(model, orders)
    first = len(encoded)
    assert first <= 4 + 4, "each once, and two of them twice to see that they may be encoded alone"
    written(model, orders)
    model.generate(orders)
    assert len(encoded) == first
