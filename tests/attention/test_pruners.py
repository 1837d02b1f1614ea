"""Pruners by name, their parameters, and the masks of layers that see fewer tokens, worked by hand."""

from __future__ import annotations

import pytest
import torch

from lad_eval.attention.hooks import AttentionCall, observe_attention, unobserved
from lad_eval.attention.interventions import INTERVENTIONS, join_interventions, parse_intervention
from lad_eval.attention.layout import PromptLayout, no_padding
from lad_eval.attention.masks import additive_mask
from lad_eval.attention.pruning.compaction import Slots, cut_entries, cut_keys, mask_form
from lad_eval.attention.pruning.fastv import FastV
from lad_eval.attention.pruning.keep import highest
from lad_eval.attention.pruning.random_tokens import RandomTokens
from lad_eval.attention.pruning.scores import over_prompt
from lad_eval.attention.pruning.steps import Steps
from lad_eval.attention.spans import Spans
from lad_eval.errors import UnsupportedModelError, UserError

REMAINING = torch.tensor([[0, 1, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1], [1, 0, 1, 0, 1, 1]]).bool()
POSITIONS = torch.tensor([[1, 3, 4, 5], [-1, -1, 4, 5], [0, 2, 4, 5]])


def test_they_are_found_by_name():
    assert INTERVENTIONS["fastv"] is FastV
    assert INTERVENTIONS["random-tokens"] is RandomTokens
    assert parse_intervention("fastv(keep=0.25)+sofa") == join_interventions([FastV(keep=0.25), parse_intervention("sofa")])
    assert parse_intervention("random-tokens(keep=12, seed=3, keep_per=image)") == RandomTokens(keep=12, seed=3, keep_per="image")


def test_one_token_is_not_all_tokens():
    one, all_tokens = parse_intervention("fastv(keep=1)"), parse_intervention("fastv(keep=1.0)")
    assert one != all_tokens
    assert len({one, all_tokens, FastV(keep=1), FastV(keep=1.0)}) == 2
    assert (one.label, all_tokens.label) == ("fastv(keep=1)", "fastv(keep=1.0)")
    assert one.facts != all_tokens.facts
    shared = {"layer": 2, "how": "drop", "keep_per": "prompt", "trend": "none", "over": "sequence", "learned": None}
    assert one.facts == {"name": "fastv", "keep": 1, "keep_is": "tokens", **shared}
    assert (parse_intervention("fastv(keep=0)"), parse_intervention("fastv(keep=0.0)")) == (FastV(keep=0), FastV(keep=0.0))


KEEP = "keep of fastv must be a whole number of tokens of at least 0, or a share of 0.0 to 1.0 such as 0.25, not "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fastv(keep=-1)", KEEP + "'-1'."),
        ("fastv(keep=-0.5)", KEEP + "'-0.5'."),
        ("fastv(keep=1.5)", KEEP + "'1.5'."),
        ("fastv(keep=nan)", KEEP + "'nan'."),
        ("fastv(keep=many)", KEEP + "'many'."),
        ("fastv(layer=0)", "layer of fastv must be a whole number of at least 1, not '0'."),
        ("sparsevlm(layer=0)", "layer of sparsevlm must be a whole number of at least 1, not '0'."),
        ("fastv(layer=1.5)", "layer of fastv must be a whole number of at least 1, not '1.5'."),
        ("fastv(how=hide)", "how of fastv must be 'drop' or 'mask', not 'hide'."),
        ("fastv(keep_per=row)", "keep_per of fastv must be 'prompt' or 'image', not 'row'."),
        ("fastv(seed=1)", "fastv has no parameter 'seed'. Its parameters are keep, layer, how, keep_per, trend, over."),
        ("fastv(trend=linear)", "trend of fastv must be 'exp' or 'mean' or 'none', not 'linear'."),
        ("himap(over=row)", "over of himap must be 'sequence' or 'image', not 'row'."),
        (
            "random-tokens(trend=exp)",
            "random-tokens has no parameter 'trend'. Its parameters are keep, layer, how, keep_per, seed.",
        ),
        ("random-tokens(seed=x)", "seed of random-tokens must be a whole number, not 'x'."),
    ],
)
def test_wrong_parameters(text, message):
    with pytest.raises(UserError) as fault:
        parse_intervention(text)
    assert str(fault.value) == message


def test_slots_of_rows_with_unequal_numbers():
    slots = Slots.of(REMAINING)
    assert torch.equal(slots.positions, POSITIONS)
    assert bool((Slots.of(REMAINING[::2]).positions >= 0).all()), "rows with equal numbers have no slots of -1"
    table = torch.arange(6.0)[None, :, None]
    assert slots.take(table, 1, 0)[1, 2:, 0].tolist() == [4.0, 5.0]
    many = torch.arange(36.0).reshape(2, 3, 6, 1)  # as of rotary positions of several axes
    assert slots.take(many, -2, -3)[1, 2, :, 0].tolist() == [30.0, 32.0, 34.0, 35.0]
    assert slots.take(torch.arange(6), -1, None).tolist() == [[1, 3, 4, 5], [0, 0, 4, 5], [0, 2, 4, 5]]
    put = slots.put(torch.zeros(3, 6, 1), torch.arange(1.0, 13.0).reshape(3, 4, 1))
    assert put[..., 0].tolist() == [[0, 1, 0, 2, 3, 4], [0, 0, 0, 0, 7, 8], [9, 0, 10, 0, 11, 12]]


def test_masks_cut_to_what_remains():
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    window = (causal & causal.T.logical_not().T.triu(-2) | torch.eye(6, dtype=torch.bool))[None, None]
    rows = []
    for positions in POSITIONS.tolist():
        row = [
            [q == k and i == j if q < 0 or k < 0 else bool(window[0, 0, q, k]) for j, k in enumerate(positions)]
            for i, q in enumerate(positions)
        ]
        rows.append(row)
    expected = torch.tensor(rows)[:, None]
    assert torch.equal(cut_entries(window, POSITIONS, POSITIONS, "bool", torch.float32), expected)
    lowest = torch.finfo(torch.float32).min
    additive = torch.zeros(1, 1, 6, 6).masked_fill(~window, lowest)
    cut = cut_entries(additive, POSITIONS, POSITIONS, "float", torch.float32)
    assert torch.equal(cut, torch.zeros(3, 1, 4, 4).masked_fill(~expected, lowest))


def test_no_mask_stays_none_only_where_all_rows_are_full():
    full = POSITIONS[::2]
    assert cut_entries(None, full, full, "bool", torch.float32) is None
    assert cut_keys(None, full) is None
    seen = cut_entries(None, POSITIONS, POSITIONS, "bool", torch.float32)
    causal = torch.ones(4, 4, dtype=torch.bool).tril()
    assert torch.equal(seen[0, 0], causal)
    assert seen[1, 0].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert cut_keys(None, POSITIONS).tolist() == [[1, 1, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1]]
    padded = torch.tensor([[0, 0, 1, 1, 1, 1]]).expand(3, -1)
    assert cut_keys(padded, POSITIONS).tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]
    last = torch.tensor([[5]]).expand(3, 1)
    assert cut_entries(None, last, POSITIONS, "bool", torch.float32)[:, 0, 0].int().tolist() == cut_keys(None, POSITIONS).tolist()


def test_masks_of_other_forms_are_refused():
    for cut in (
        lambda: cut_keys(object(), POSITIONS),
        lambda: cut_entries(object(), POSITIONS, POSITIONS, "bool", torch.float32),
    ):
        with pytest.raises(UnsupportedModelError, match="form object cannot be cut to fewer tokens; use --attn sdpa or eager"):
            cut()
    module = torch.nn.Module()
    module.config = type("Config", (), {"_attn_implementation": "flex_attention"})
    with pytest.raises(UnsupportedModelError, match="'flex_attention' takes masks that cannot be cut to fewer tokens"):
        mask_form(module)


def test_the_greatest_of_each_group_and_of_equals_the_first():
    scores = torch.tensor([[5.0, 1.0, 1.0, 9.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    groups = torch.tensor([[0, 0, 0, -1, 1, 1], [0, 0, 0, 0, 1, 1]])
    kept = highest(scores, groups, torch.tensor([[2, 1], [3, 0]]))
    assert kept.int().tolist() == [[1, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 0]]


def call_of(module, tokens=6, layer=1, positions=None, **options):
    return AttentionCall(layer, module, torch.zeros(3, 2, tokens, 4), torch.zeros(3, 2, tokens, 4), None, options, positions)


def test_values_of_keys_at_the_tokens_of_the_prompt():
    values = torch.arange(1.0, 13.0).reshape(3, 4)
    full = over_prompt(values, call_of(torch.nn.Module(), positions=POSITIONS), 6)
    assert full.tolist() == [[0, 1, 0, 2, 3, 4], [0, 0, 0, 0, 7, 8], [9, 0, 10, 0, 11, 12]]
    stacked = over_prompt(torch.stack([values, -values], dim=1), call_of(torch.nn.Module(), positions=POSITIONS), 6)
    assert torch.equal(stacked, torch.stack([full, -full], dim=1))


def test_layers_that_count_remaining_tokens_as_those_of_the_prompt_are_refused(lab):
    model, _ = lab.load("llama4")
    layout = PromptLayout(
        torch.zeros(3, 6, dtype=torch.long),
        Spans(*[torch.zeros(3, 0, 2)] * 2, torch.full((3, 6), -1)),
        REMAINING,
        ("?",) * 3,
        str,
        no_padding,
    )
    steps = Steps(model, layout)
    module = torch.nn.Module()
    module.config = type("Config", (), {"_attn_implementation": "flash_attention_2"})
    steps.note_window(call_of(module, sliding_window=6))
    with pytest.raises(UnsupportedModelError, match="Layer 1 attends to the last 5 tokens, which flash attention cannot count"):
        steps.note_window(call_of(module, sliding_window=5))
    module.config._attn_implementation = "sdpa"
    steps.note_window(call_of(module, sliding_window=5))
    module.attn_temperature_tuning, module.use_rope, module.floor_scale = True, False, 7
    steps.note_window(call_of(module))
    module.floor_scale = 6
    with pytest.raises(UnsupportedModelError, match="Layer 1 scales queries by their place in prompts of 6 tokens or more"):
        steps.note_window(call_of(module))


def test_a_single_query_without_a_mask_comes_after_all_keys():
    module = torch.nn.Module()
    single = AttentionCall(0, module, torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 5, 4), None, {"sliding_window": 3})
    assert not additive_mask(single).any()


def test_observers_do_not_see_a_pass_that_is_no_part_of_the_models_own(lab):
    model, _ = lab.load("llava-1.5")
    words = torch.tensor([[5, 6, 7]])
    outer, inner = [], []
    with torch.no_grad(), observe_attention(model, lambda call: outer.append(call.layer)):
        with unobserved(), observe_attention(model, lambda call: inner.append(call.layer)):
            model(input_ids=words)
        assert outer == []
        model(input_ids=words)
    assert inner == outer == [0, 1, 2]
