"""What is captured of prompts: the right tokens, whatever the batch, stored and resumed."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from lad_eval.attention.hooks import attention_layers
from lad_eval.errors import UserError
from lad_eval.models.base import RunsPrompts
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.models.random import FAMILIES, load_random
from lad_eval.models.random.untrained import untrained
from lad_eval.models.registry import load_model
from lad_eval.studies.key_space import capture as capturing
from lad_eval.studies.key_space.capture import capture, choose_layers
from lad_eval.studies.key_space.tokens import (
    QUESTION,
    TEMPLATE,
    VISUAL,
    question_starts,
    sample_tokens,
    special_tokens,
    text_tokens,
    tokens_per_sample,
)
from lad_eval.tasks.registry import load_task


def requests_of(count, task="scenes_adversarial_n4"):
    loaded = load_task(task)
    return [loaded.request(sample, loaded.orders[0]) for sample in islice(loaded.samples("test", count), count)]


def vlm(family, **options):
    try:
        model, processor = load_random(family, dtype=torch.float32)
    except UserError as missing:
        pytest.skip(str(missing))
    return HuggingFaceVLM(model, processor, name=f"random:{family}", weights="seed 0", **options)


@pytest.fixture(scope="module")
def tiny():
    return load_model("lad-tiny", device="cpu")


def read(model, requests, **how):
    def made(layout, run):
        special = special_tokens(model.processor.tokenizer)
        return layout, sample_tokens(layout, special, how.get("most", 8), how.get("seed", 0)), text_tokens(layout, special)

    return list(model.read_prompts(requests, made))


def test_tokens_are_what_their_kind_says(tiny):
    ((layout, tokens, text),) = read(tiny, requests_of(3), most=1000)
    names = tiny.processor.tokenizer.convert_ids_to_tokens
    for row in range(3):
        chosen = {
            kind: [names(int(layout.ids[row, c])) for c in tokens.column[(tokens.row == row) & (tokens.kind == kind)]]
            for kind in (VISUAL, QUESTION, TEMPLATE)
        }
        assert chosen[VISUAL] == ["<|image_pad|>"] * 64
        assert chosen[QUESTION][:5] == ["Given", "4", "images", "indexed", "from"]
        assert chosen[QUESTION][-2:] == ["Answer", ":"]
        assert "".join("".join(chosen[QUESTION]).split()) == "".join(layout.questions[row].split())
        before = ["system", "\n", "You", "are", "a", "helpful", "assistant", ".", "\n", "user", "\n"]
        assert chosen[TEMPLATE] == [*before, "\n", "assistant", "\n"]
        ahead = tokens.ahead[(tokens.row == row) & (tokens.kind == TEMPLATE)]
        assert ahead.tolist() == [True] * 11 + [False] * 3
    assert not (text & layout.visual).any()
    assert not (text & ~layout.attended).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_shows_its_question_and_its_text(family):
    model = vlm(family)
    ((layout, tokens, _),) = read(model, requests_of(2), most=1000)
    special = special_tokens(model.processor.tokenizer)
    for row, start in enumerate(question_starts(layout)):
        shown = layout.decode(layout.ids[row, start : int(layout.instruction_end[row]) + 1].tolist())
        assert "".join(shown.split()).endswith("".join(layout.questions[row].split()))
        assert len("".join(shown.split())) <= len("".join(layout.questions[row].split())) + 8
        assert set(tokens.kind[tokens.row == row].tolist()) >= {VISUAL, QUESTION}
    chosen = layout.ids[tokens.row, tokens.column]
    for number, kind in zip(chosen.tolist(), tokens.kind.tolist(), strict=True):
        assert kind == VISUAL or number not in special
    assert bool(layout.attended[tokens.row, tokens.column].all())


def test_the_choice_does_not_depend_on_the_batch_and_does_on_the_seed(tiny):
    requests = [replace(r, question=r.question + " really" * i) for i, r in enumerate(requests_of(3))]
    requests = [replace(r, sample_id=f"s{i}") for i, r in enumerate(requests)]
    ((layout, together, _),) = read(tiny, requests)
    for row, key in enumerate(layout.keys):
        request = next(one for one in requests if one.key == key)
        ((_, tokens, _),) = read(tiny, [request])
        padding = int((~layout.attended[row]).sum())
        here = together.row == row
        assert np.array_equal(together.column[here] - padding, tokens.column)
        assert np.array_equal(together.kind[here], tokens.kind)
        ((_, other, _),) = read(tiny, [request], seed=1)
        assert not np.array_equal(other.column, tokens.column)
    assert not layout.attended[:, 0].all()


def test_how_many_tokens_are_taken():
    assert [tokens_per_sample(n) for n in (1, 78, 79, 200, 10_000)] == [64, 64, 63, 25, 1]


def test_capture_is_stored_resumed_and_the_same(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(capturing, "SHARD", 2)
    requests, layers = requests_of(5), choose_layers(tiny.model, "0,7")
    model = load_model("lad-tiny", device="cpu", batch_size=2)
    whole = capture(model, requests, layers, tmp_path / "whole", seed=0, shown=False)
    assert len(list((tmp_path / "whole").rglob("shard-*.safetensors"))) == 3
    calls = []
    original = type(model).read_prompts

    def stopped(self, wanted, use):
        calls.append(len(wanted))
        for number, made in enumerate(original(self, wanted, use)):
            if number == 1 and len(calls) == 1:
                raise KeyboardInterrupt
            yield made

    monkeypatch.setattr(type(model), "read_prompts", stopped)
    with pytest.raises(KeyboardInterrupt):
        capture(model, requests, layers, tmp_path / "parts", seed=0, shown=False)
    resumed = capture(model, requests, layers, tmp_path / "parts", seed=0, shown=False)
    assert calls == [5, 3]
    again = capture(model, requests, layers, tmp_path / "parts", seed=0, shown=False)
    assert calls == [5, 3, 0]
    for other in (resumed, again):
        assert np.array_equal(other.sample, whole.sample)
        assert np.array_equal(other.kind, whole.kind)
        for layer in layers:
            for stage in ("unrotated", "rotated"):
                np.testing.assert_allclose(other.keys(layer, stage), whole.keys(layer, stage), atol=2e-2)
        np.testing.assert_allclose(other.links, whole.links, atol=1e-4)
    assert np.bincount(whole.kind[whole.sample == 0]).tolist() == [64, 45, 14]


def test_batches_of_one_and_of_sixteen_give_the_same(tmp_path):
    requests = [replace(r, question=f"{'Well. ' * (i % 3)}{r.question}") for i, r in enumerate(requests_of(16))]
    results = []
    for size in (1, 16):
        model = load_model("lad-tiny", device="cpu", batch_size=size)
        results.append(capture(model, requests, (0, 7), tmp_path / str(size), seed=0, shown=False))
    one, many = results
    assert np.array_equal(one.sample, many.sample)
    assert np.array_equal(one.kind, many.kind)
    assert np.array_equal(one.length, many.length)
    for layer in (0, 7):
        for stage in ("unrotated", "rotated"):
            np.testing.assert_allclose(one.keys(layer, stage), many.keys(layer, stage), atol=0.03)  # stored in half precision
        np.testing.assert_allclose(one.scores(layer), many.scores(layer), atol=1e-3)
    np.testing.assert_allclose(one.links, many.links, atol=1e-3)


def test_a_damaged_shard_is_named(tiny, tmp_path):
    requests = requests_of(2)
    capture(tiny, requests, (0,), tmp_path, seed=0, shown=False)
    (shard,) = tmp_path.rglob("shard-*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(
        UserError, match=r"shard-000000.safetensors is damaged \(.*\); delete it, and its prompts will be run again"
    ):
        capture(tiny, requests, (0,), tmp_path, seed=0, shown=False)


def test_a_prompt_that_two_calls_stored_counts_once(tiny, tmp_path):
    requests = requests_of(4)
    once = capture(tiny, requests, (0,), tmp_path / "once", seed=0, shown=False)
    capture(tiny, requests, (0,), tmp_path / "twice", seed=0, shown=False)
    (shard,) = (tmp_path / "twice").rglob("shard-*.safetensors")
    shard.with_name("shard-000001.safetensors").write_bytes(shard.read_bytes())
    twice = capture(tiny, requests, (0,), tmp_path / "twice", seed=0, shown=False)
    assert len(twice.length) == 4
    assert np.array_equal(once.keys(0, "rotated"), twice.keys(0, "rotated"))
    assert np.array_equal(once.links, twice.links)
    assert once.heads.tolist() == twice.heads.tolist() == [4]


def test_layers_are_chosen_among_those_that_attend(tiny):
    assert choose_layers(tiny.model, None) == (0, 2, 4, 5, 7)
    assert choose_layers(tiny.model, "all") == tuple(range(8))
    assert choose_layers(tiny.model, "7, 0,0") == (0, 7)
    with pytest.raises(UserError, match=r"--layers takes all, or layers that attend, .*; '8' is not one of 0 to 7"):
        choose_layers(tiny.model, "0,8")
    with pytest.raises(UserError, match="'first' is not one of"):
        choose_layers(tiny.model, "first")
    hybrid, _ = load_random("qwen3.5")
    assert choose_layers(hybrid, None) == (1, 3)
    with pytest.raises(UserError, match="'0' is not one of 1, 3"):
        choose_layers(hybrid, "0")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_untrained_model_is_the_same_architecture_with_other_weights(family):
    model = vlm(family).model
    made = untrained(model, 3)
    before, after = dict(model.named_parameters()), dict(made.named_parameters())
    assert {name: p.shape for name, p in before.items()} == {name: p.shape for name, p in after.items()}
    layer = sorted(attention_layers(model))[0]
    key = next(name for name in before if f"layers.{layer}.self_attn.k_proj.weight" in name and "vis" not in name)
    assert not torch.equal(before[key], after[key])
    assert made.config._attn_implementation == model.config._attn_implementation
    again = dict(untrained(model, 3).named_parameters())
    assert all(torch.equal(after[name], again[name]) for name in after)
    assert not torch.equal(dict(untrained(model, 4).named_parameters())[key], after[key])
    assert isinstance(vlm(family), RunsPrompts)
