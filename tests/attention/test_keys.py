"""Recorded keys against keys recomputed from the layer's own modules, on tiny random models of every family."""

from __future__ import annotations

import inspect

import pytest
import torch

from lad_eval.attention.hooks import attention_layers, observe_attention
from lad_eval.attention.keys import LINKS, KeyRecorder, record_keys, stage_names, unrotated_source
from lad_eval.attention.rows import attention_rows
from lad_eval.attention.spans import image_spans
from lad_eval.errors import UnsupportedModelError
from lad_eval.models.inference.continuation import with_positions
from lad_eval.models.random import FAMILIES

# Families whose rotary positions are (cos, sin) pairs, applied to halves of a head by their own `apply_...rotary_pos_emb`.
ROTATING = (
    "qwen2-vl", "qwen2.5-vl", "qwen3-vl", "qwen3.5", "llava-1.5", "llava-next", "llava-onevision", "internvl", "idefics3",
    "smolvlm", "gemma3", "mistral3", "pixtral", "paligemma", "qwen3-vl-moe", "ovis2", "lfm2-vl", "minicpm-v-4.6", "molmo2",
)  # fmt: skip


def prepared(lab, family, rows=None):
    model, processor = lab.load(family)
    inputs = lab.prepare(processor, lab.ROWS if rows is None else rows)
    spans = image_spans(model, processor, inputs, 3)
    return model, spans, with_positions(model, lab.for_model(inputs))


def every_token(spans, attended):
    """Rows and columns of all real tokens."""
    rows, columns = attended.bool().nonzero(as_tuple=True)
    return rows, columns


def record(model, spans, inputs, layers=None):
    attended = inputs["attention_mask"].bool()
    rows, columns = every_token(spans, attended)
    visual = spans.owner >= 0
    layers = sorted(attention_layers(model)) if layers is None else layers
    with torch.no_grad(), record_keys(model, layers, rows, columns, [visual, attended & ~visual]) as recorder:
        output = model(**inputs, use_cache=False)
    recorder.check()
    return recorder, output.logits


@pytest.mark.parametrize("family", FAMILIES)
def test_hooks_leave_the_logits_as_they_are_to_the_bit(lab, family):
    model, spans, inputs = prepared(lab, family)
    with torch.no_grad():
        before = model(**inputs, use_cache=False).logits
    recorder, logits = record(model, spans, inputs)
    assert torch.equal(logits, before)
    with torch.no_grad():
        assert torch.equal(model(**inputs, use_cache=False).logits, before)
    tokens = int(inputs["attention_mask"].sum())
    for layer, module in attention_layers(model).items():
        assert recorder.keys[layer, "rotated"].shape[0] == tokens
        assert ((layer, "unrotated") in recorder.keys) == (unrotated_source(module) is not None)
        assert recorder.links[layer].shape == (2, len(LINKS), 2)
        assert not module._forward_hooks
        assert not any(child._forward_hooks for child in module.children())


@pytest.mark.parametrize("family", ROTATING)
def test_rotated_keys_are_those_recomputed_from_projection_norm_and_positions(lab, family):
    model, spans, inputs = prepared(lab, family)
    modules, entered = attention_layers(model), {}

    def note(layer):
        def hook(module, args, kwargs):
            entered[layer] = (args[0] if args else kwargs["hidden_states"], kwargs)

        return hook

    handles = [module.register_forward_pre_hook(note(i), with_kwargs=True) for i, module in modules.items()]
    try:
        recorder, _ = record(model, spans, inputs)
    finally:
        for handle in handles:
            handle.remove()
    rows, columns = every_token(spans, inputs["attention_mask"])
    compared = 0
    for layer, module in modules.items():
        hidden, kwargs = entered[layer]
        names = dict(module.named_children())
        with torch.no_grad():
            projected = names["k_proj"](hidden)
            width = module.head_dim
            heads = projected.unflatten(-1, (-1, width))
            norm = names.get("k_norm", names.get("k_layernorm"))
            if norm is not None:
                flat = getattr(norm, "weight", torch.empty(0)).numel() == projected.shape[-1] != width
                heads = norm(projected).unflatten(-1, (-1, width)) if flat else norm(heads)
            turned = rotated(module, heads.transpose(1, 2), kwargs["position_embeddings"])
        expected = heads[rows, columns].flatten(1)
        torch.testing.assert_close(recorder.keys[layer, "unrotated"], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(
            recorder.keys[layer, "rotated"], turned.transpose(1, 2)[rows, columns].flatten(1), atol=1e-5, rtol=0
        )
        assert (recorder.keys[layer, "rotated"] - recorder.keys[layer, "unrotated"]).abs().max() > 1e-3
        compared += 1
    assert compared >= 2


def rotated(module, keys, embeddings):
    """The module's own rotation of [batch, H_kv, T, d], queries being the keys themselves."""
    names = inspect.getmodule(type(module)).__dict__
    cos, sin = embeddings
    section = getattr(module, "rope_scaling", None) or getattr(module, "rope_parameters", None)
    if "apply_multimodal_rotary_pos_emb" in names and cos.dim() == 4:
        return names["apply_multimodal_rotary_pos_emb"](keys, keys, cos, sin, section["mrope_section"])[1]
    return names["apply_rotary_pos_emb"](keys, keys, cos, sin)[1]


@pytest.mark.parametrize("family", ["qwen2.5-vl", "gemma3", "llava-1.5", "gemma4"])
def test_links_are_those_of_loops(lab, family):
    model, spans, inputs = prepared(lab, family)
    calls = {}
    with observe_attention(model, lambda call: calls.setdefault(call.layer, call)):
        recorder, _ = record(model, spans, inputs)
    attended, visual = inputs["attention_mask"].bool(), spans.owner >= 0
    for layer, call in calls.items():
        share = call.query.shape[1] // call.key.shape[1]
        weights = attention_rows(call, torch.full((2, 1), call.query.shape[2] - 1))[:, :, 0]
        for b in range(2):
            for g, members in enumerate([visual, attended & ~visual]):
                values = []
                for t in members[b].nonzero()[:, 0].tolist():
                    for h in range(call.query.shape[1]):
                        query, key = call.query[b, h, -1].double(), call.key[b, h // share, t].double()
                        score = query @ key
                        values.append(
                            [
                                score * call.options.get("scaling", call.query.shape[-1] ** -0.5),
                                key.norm(),
                                score / (query.norm() * key.norm()),
                                weights[b, h, t],
                            ]
                        )
                expected = torch.tensor(values).mean(dim=0).float()
                torch.testing.assert_close(recorder.links[layer][b, :, g], expected, atol=1e-4, rtol=1e-4)
                rows, columns = every_token(spans, attended)
                scores = recorder.scores[layer][members[rows, columns] & (rows == b)]
                torch.testing.assert_close(scores.mean(), expected[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["qwen2.5-vl", "gemma3", "llava-onevision", "qwen3.5"])
def test_a_batch_is_its_rows(lab, family):
    model, spans, inputs = prepared(lab, family)
    both, _ = record(model, spans, inputs)
    alone = []
    for row in lab.ROWS:
        model, one, given = prepared(lab, family, [row])
        alone.append(record(model, one, given)[0])
    for name, keys in both.keys.items():
        torch.testing.assert_close(keys, torch.cat([one.keys[name] for one in alone]), atol=1e-4, rtol=0)
    for layer, links in both.links.items():
        torch.testing.assert_close(links, torch.cat([one.links[layer] for one in alone]), atol=1e-4, rtol=0)


def test_a_prompt_without_keys_of_a_group_has_no_link(lab):
    model, spans, inputs = prepared(lab, "qwen2.5-vl")
    none = torch.zeros_like(spans.owner, dtype=torch.bool)
    none[1] = True
    with torch.no_grad(), record_keys(model, [0], torch.tensor([0]), torch.tensor([5]), [none]) as recorder:
        model(**inputs, use_cache=False)
    assert recorder.links[0][0].isnan().all()
    assert recorder.links[0][1].isfinite().all()


def test_where_projections_are_one_there_are_rotated_keys_only(lab):
    model, _, _ = prepared(lab, "gemma4")
    assert stage_names(model, (0, 1, 2, 3)) == {0: "normed", 1: "normed", 2: "none", 3: "none"}
    fused = torch.nn.Module()
    fused.qkv_proj, fused.o_proj = torch.nn.Linear(4, 12), torch.nn.Linear(4, 4)
    assert unrotated_source(fused) is None
    plain = torch.nn.Module()
    plain.k_proj, plain.k_norm = torch.nn.Linear(4, 4), torch.nn.Identity()
    assert unrotated_source(plain) == "k_proj"


def test_what_cannot_be_recorded_is_named(lab):
    model, _, _ = prepared(lab, "qwen3.5")
    one = torch.tensor([0])
    with (
        pytest.raises(UnsupportedModelError, match="Decoder layer 0 of Qwen3_5ForConditionalGeneration has no attention"),
        record_keys(model, [0], one, one, [torch.ones(1, 4, dtype=torch.bool)]),
    ):
        pass
    recorder = KeyRecorder(model, [1], one, one, [torch.ones(1, 4, dtype=torch.bool)])
    with pytest.raises(UnsupportedModelError, match="layer 1 gave no keys"):
        recorder.check()
    with pytest.raises(UnsupportedModelError, match=r"layer 1 have the shape \[1, 7, 8\]"):
        recorder.take_unrotated(1, torch.ones(1, 7, 8))
    recorder.take_unrotated(1, torch.full((1, 4, 8), torch.inf))
    recorder.links[1] = torch.zeros(1, 4, 1)
    with pytest.raises(UnsupportedModelError, match="keys of decoder layer 1 are not finite"):
        recorder.check()
