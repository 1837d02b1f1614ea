"""The published pruners and their trends, on tiny random models."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from lad_eval.attention.hooks import attention_layers
from lad_eval.attention.interventions import INTERVENTIONS, parse_intervention
from lad_eval.attention.interventions.learned import LearnedState
from lad_eval.attention.layout import PromptLayout, no_padding
from lad_eval.attention.pruning.scores import last_token_attention
from lad_eval.attention.spans import Spans
from lad_eval.errors import UserError
from lad_eval.models.inference.continuation import with_positions

NAMES = ("fastv", "pyramiddrop", "sparsevlm", "sparsevlm-plus", "himap", "tokencarve")


def equal(lab, count=3, seed=0):
    return [(lab.EQUAL, f"Caption: {seed} and {i}\nAnswer: ") for i in range(count)]


def passes(lab, model, batches):
    for inputs, layout in batches:
        yield layout, lambda inputs=inputs: lab.logits(model, inputs)


def first_layer(model):
    return min(attention_layers(model)) + 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", ["llava-1.5", "qwen3-vl", "gemma3"])
def test_keeping_nothing_is_the_same_for_all(lab, family, name):
    model, inputs, layout = lab.prompts(family)
    layer, plain = first_layer(model), lab.logits(model, inputs)
    nothing = [lab.under(INTERVENTIONS[other](keep=0, layer=layer), model, inputs, layout) for other in (name, "random-tokens")]
    torch.testing.assert_close(*nothing, atol=1e-5, rtol=0)
    assert (nothing[0] - plain).abs().max() > 1e-3


def shown_or_not(lab, *rows):
    """A model, and inputs and layout of prompts of one image or none."""
    model, processor = lab.load("llava-1.5")
    inputs = lab.prepare(processor, rows)
    token = model.config.image_token_id
    owner = torch.where(inputs["input_ids"] == token, 0, -1)
    spans = Spans(*[torch.zeros(len(rows), 0, 2, dtype=torch.long)] * 2, owner)
    texts = tuple(text for _, text in rows)
    attended = inputs["attention_mask"].bool()
    layout = PromptLayout(inputs["input_ids"], spans, attended, texts, processor.tokenizer.decode, no_padding, (), texts, texts)
    return model, with_positions(model, lab.for_model(inputs)), layout


WORDS = ([], "How many circles are there?")
IMAGE = ([(64, 64)], "A much longer question than the other one: what is left of the circle?")


@pytest.mark.parametrize("keep", [6, 0.25])
@pytest.mark.parametrize("name", [*NAMES, "random-tokens"])
def test_a_prompt_without_visual_tokens_is_left_as_it_is(lab, name, keep):
    pruner = INTERVENTIONS[name](keep=keep, layer=1)
    model, inputs, layout = shown_or_not(lab, WORDS)
    assert not layout.visual.any()
    assert torch.equal(lab.under(pruner, model, inputs, layout), lab.logits(model, inputs))
    model, inputs, layout = shown_or_not(lab, WORDS, IMAGE)
    assert layout.visual.any(dim=1).tolist() == [False, True]
    plain, both = lab.logits(model, inputs), lab.under(pruner, model, inputs, layout)
    torch.testing.assert_close(both[0], plain[0], atol=1e-5, rtol=0)
    assert (both[1] - plain[1]).abs().max() > 1e-3
    alone = lab.under(pruner, *shown_or_not(lab, IMAGE))
    torch.testing.assert_close(both[1], alone[0], atol=5e-5, rtol=0)


def test_a_number_of_tokens_is_refused_where_an_image_has_fewer_whatever_the_other_prompts(lab):
    model, inputs, layout = shown_or_not(lab, WORDS, IMAGE)
    with pytest.raises(UserError, match=r"fastv\(keep=17, layer=1\) cannot keep 17 visual tokens, as a prompt has 16"):
        lab.under(INTERVENTIONS["fastv"](keep=17, layer=1), model, inputs, layout)


@pytest.mark.parametrize("over", ["sequence", "image"])
@pytest.mark.parametrize("trend", ["exp", "mean"])
def test_a_trend_passes_by_prompts_without_visual_tokens(lab, trend, over):
    fresh = INTERVENTIONS["fastv"](keep=6, layer=1, trend=trend, over=over)
    model, *both = shown_or_not(lab, WORDS, IMAGE)
    _, *image = shown_or_not(lab, IMAGE)
    learned = [fresh.calibrated(model, passes(lab, model, [batch])) for batch in (both, image)]
    assert [pruner.learned_trend.requests for pruner in learned] == [1, 1]
    np.testing.assert_allclose(*(pruner.learned.arrays["mean/16"] for pruner in learned), atol=1e-6)
    _, *words = shown_or_not(lab, WORDS)
    assert torch.equal(lab.under(learned[0], model, *words), lab.logits(model, words[0]))
    with pytest.raises(UserError, match="A trend is fitted to at least 3 visual tokens, not 0; use trend=none"):
        fresh.calibrated(model, passes(lab, model, [words]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", ["llava-1.5", "qwen3-vl", "gemma3"])
def test_a_row_does_not_depend_on_its_batch(lab, family, name):
    rows = lab.unequal_rows()
    model, inputs, layout = lab.prompts(family, rows)
    pruner = INTERVENTIONS[name](keep=6, layer=first_layer(model))
    together = lab.under(pruner, model, inputs, layout)
    for b, row in enumerate(rows):
        model, inputs, layout = lab.prompts(family, [row])
        torch.testing.assert_close(lab.under(pruner, model, inputs, layout)[0], together[b], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_as_many_tokens_stay_as_are_asked_for(lab, name):
    model, inputs, layout = lab.prompts("llava-1.5")
    pruner, visual = INTERVENTIONS[name](keep=12, layer=1), layout.visual
    stage_input = lab.stage_input_before(model, inputs, layout, 1)
    share = float(pruner._shares(torch.tensor([[12 / 48]]).double())[0])
    choice = pruner._decide(stage_input, 0)
    counts = (choice.remaining & visual).sum(dim=1)
    expected = {"tokencarve": 12}.get(name, int(share * 48 + 1e-6))
    if name == "sparsevlm":  # of n dropped tokens int(0.3 n) + 1 go on in one tenth as many, and one
        expected += (int(0.3 * (48 - expected)) + 1) // 10 + 1
    assert counts.tolist() == [expected] * 3
    assert torch.equal(choice.remaining & ~visual, layout.attended & ~visual), "text stays"
    per_image = INTERVENTIONS[name](keep=4, layer=1, keep_per="image")._decide(stage_input, 0).remaining
    owners = [[int((per_image[b] & (layout.spans.owner[b] == image)).sum()) for image in range(3)] for b in range(3)]
    assert name == "sparsevlm" or len({count for row in owners for count in row}) == 1


def test_merged_tokens_go_on_with_new_states(lab):
    model, inputs, layout = lab.prompts("llava-1.5")
    stage_input = lab.stage_input_before(model, inputs, layout, 1)
    before = stage_input.hidden.clone()
    for name in ("sparsevlm", "tokencarve"):
        choice = INTERVENTIONS[name](keep=12, layer=1)._decide(stage_input, 0)
        changed = (choice.hidden != stage_input.hidden).any(dim=-1)
        assert (changed.sum(dim=1) >= 1).all()
        assert not (changed & ~(choice.remaining & layout.visual)).any()
        assert torch.equal(stage_input.hidden, before), "what enters is not written to"
    assert INTERVENTIONS["sparsevlm"](keep=12, layer=1, merge=False)._decide(stage_input, 0).hidden is None


def calibrated(lab, pruner, family="llava-1.5", padding=no_padding, batches=2):
    model, _ = lab.load(family)
    made = [lab.prompts(family, equal(lab, seed=seed), padding=padding)[1:] for seed in range(batches)]
    return pruner.calibrated(model, passes(lab, model, made)), model, made


@pytest.mark.parametrize("trend", ["exp", "mean"])
@pytest.mark.parametrize("name", NAMES)
def test_a_trend_is_learned_from_plain_passes_and_divided_out(lab, name, trend, tmp_path):
    fresh = INTERVENTIONS[name](keep=0.25, layer=1, trend=trend)
    model, inputs, layout = lab.prompts("llava-1.5", equal(lab, seed=7))
    with pytest.raises(UserError, match=r"has learned nothing yet; calibrate it"), fresh.applied(model, layout):
        pass
    pruner, _, batches = calibrated(lab, fresh)
    assert pruner.learned.sample_ids == tuple(sorted(text for _, layout in batches for text in layout.sample_ids))
    means = np.mean(
        [
            fresh._attention(lab.stage_input_before(model, *batch, 1), 0)[batch[1].visual].reshape(3, -1).mean(dim=0)
            for batch in batches
        ],
        axis=0,
    )
    stored = pruner.learned.arrays["mean/16-16-16"]
    np.testing.assert_allclose(stored, means, atol=1e-6)
    assert pruner.learned_trend.requests == 6
    assert pruner.learned_notes[-1].endswith("The trend is fitted to 6 requests only; at least 100 are advised.")
    assert set(pruner.strengths) == {"attention", "kept before", "kept after"}
    assert pruner.facts["learned"] == pruner.learned.digest != fresh.facts["learned"]

    stage_input = lab.stage_input_before(model, inputs, layout, 1)
    raw, curve = fresh._attention(stage_input, 0), torch.from_numpy(pruner.learned_trend.curve((16, 16, 16)))
    if name != "tokencarve":  # which ranks what is left
        repaired = pruner._scores(stage_input, 0)[layout.visual].reshape(3, -1)
        torch.testing.assert_close(repaired, (raw[layout.visual].reshape(3, -1) / curve).float())
        torch.testing.assert_close(pruner._scores(stage_input, 1) if name == "fastv" else raw, raw, msg="the first stage alone")
    path = tmp_path / "learned.safetensors"
    pruner.learned.save(path)
    again = dataclasses.replace(fresh, learned=LearnedState.load(path, name))
    assert again == pruner
    assert torch.equal(lab.under(again, model, inputs, layout), lab.under(pruner, model, inputs, layout))


def test_a_ramp_planted_in_attention_is_found_and_the_tokens_are_those_without_it(lab, monkeypatch):
    """The attention of a real model times exp(1.2 x): after calibration the same tokens stay as under a trend of none."""
    kind = INTERVENTIONS["fastv"]
    clean = kind._attention

    def ramped(self, stage_input, stage):
        scores, visual = clean(self, stage_input, stage).clone(), stage_input.layout.visual
        for b in range(len(scores)):
            scores[b, visual[b]] = torch.exp(1.2 * torch.linspace(0, 1, int(visual[b].sum())))
        return scores

    monkeypatch.setattr(kind, "_attention", ramped)
    pruner, model, _ = calibrated(lab, kind(keep=0.25, layer=1, trend="exp"))
    assert pruner.strengths["attention"].sigma == pytest.approx(1.2, abs=0.05)
    assert pruner.learned_notes[0].endswith("late tokens are preferred (sigma 1.20, R2 1.00).")
    assert pruner.strengths["kept before"].sigma > 1

    def ramped_attention(self, stage_input, stage):
        return clean(self, stage_input, stage) * ramped(self, stage_input, stage)

    model, inputs, layout = lab.prompts("llava-1.5", equal(lab, seed=7))
    stage_input = lab.stage_input_before(model, inputs, layout, 1)
    monkeypatch.setattr(kind, "_attention", clean)
    expected = kind(keep=0.25, layer=1)._decide(stage_input, 0).remaining
    monkeypatch.setattr(kind, "_attention", ramped_attention)
    assert torch.equal(pruner._decide(stage_input, 0).remaining, expected)
    assert not torch.equal(kind(keep=0.25, layer=1)._decide(stage_input, 0).remaining, expected)


@pytest.mark.parametrize("name", NAMES)
def test_padding_of_pictures_leaves_first_and_lowers_what_is_kept(lab, name):
    def half(spans):
        """Every other visual token shows padding."""
        return torch.where((spans.owner >= 0) & (torch.arange(spans.length) % 2 == 0), 1.0, 0.0)

    options = {"merge": False} if name == "sparsevlm" else {}
    pruner, _, _ = calibrated(lab, INTERVENTIONS[name](keep=0.75, layer=1, trend="exp", **options), padding=half)
    model, inputs, layout = lab.prompts("llava-1.5", equal(lab, seed=7), padding=half)
    stage_input = lab.stage_input_before(model, inputs, layout, 1)
    remaining = pruner._decide(stage_input, 0).remaining
    padding = layout.visual & (layout.padding_share > 0.5)
    assert torch.equal(remaining, layout.attended & ~padding), "0.75 of the tokens are more than those that show a picture"
    fewer = dataclasses.replace(pruner, keep=0.25)
    share = min(1.0, float(fewer._shares(torch.tensor([[0.25]]).double())[0]))
    left = fewer._decide(stage_input, 0).remaining
    expected = 12 if name == "tokencarve" else min(24, int(share * 48 + 1e-6))
    assert (left & layout.visual).sum(dim=1).tolist() == [expected] * 3
    assert not (left & padding).any()
    plain = INTERVENTIONS[name](keep=1.0, layer=1)._decide(stage_input, 0).remaining
    assert torch.equal(plain, layout.attended), "padding is part of the repair alone"


def test_a_mean_is_refused_for_another_grid(lab):
    pruner, _, _ = calibrated(lab, INTERVENTIONS["fastv"](keep=0.25, layer=1, trend="mean"), family="qwen2.5-vl")
    model, inputs, layout = lab.prompts("qwen2.5-vl")
    with pytest.raises(UserError, match=r"The mean trend was fitted to 16 \+ 16 \+ 16 visual tokens, and there are"):
        lab.under(pruner, model, inputs, layout)


def test_calibration_refuses_what_it_cannot_use(lab):
    model, _ = lab.load("llava-1.5")
    with pytest.raises(UserError, match=r"cannot be calibrated on no samples"):
        INTERVENTIONS["fastv"](keep=0.25, layer=1, trend="exp").calibrated(model, [])
    idle = INTERVENTIONS["fastv"](keep=0.25)
    assert idle.calibrated(model, []) is idle
    assert idle.is_ready


def test_by_name():
    text = "tokencarve(keep=64, trend=mean, over=image)"
    assert parse_intervention(text).label == text
    assert parse_intervention("sparsevlm(merge=false)").merge is False
    assert parse_intervention("sparsevlm").layer == 3
    with pytest.raises(UserError, match="trend of fastv must be 'exp' or 'mean' or 'none', not 'ramp'"):
        parse_intervention("fastv(trend=ramp)")


def test_scores_are_computed_once(lab, monkeypatch):
    model, inputs, layout = lab.prompts("llava-1.5")
    for name in NAMES:
        kind, calls = INTERVENTIONS[name], []
        attention = kind._attention
        monkeypatch.setattr(kind, "_attention", lambda *a, calls=calls, attention=attention: calls.append(1) or attention(*a))
        pruner = kind(keep=0.25, layer=1)
        lab.under(pruner, model, inputs, layout)
        assert len(calls) == len(pruner._layers(3)), name


def test_fastv_is_the_last_tokens_attention(lab):
    model, inputs, layout = lab.prompts("llava-1.5")
    stage_input = lab.stage_input_before(model, inputs, layout, 2)
    assert torch.equal(
        INTERVENTIONS["fastv"]()._attention(stage_input, 0), last_token_attention(stage_input.attention, layout.length)
    )
