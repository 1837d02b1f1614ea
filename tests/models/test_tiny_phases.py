"""Targets and masks of the embedded models' later phases."""

import json
import math
import random

import pytest
import torch

from lad_eval.models import tiny
from lad_eval.tasks.sources.scenes import RELATION
from recipes.lad_tiny.build import IMAGE_TOKENS, build_config, build_processor
from recipes.lad_tiny.data import Sheet, draw_album
from recipes.lad_tiny.network import encode_images, forward, install, lower, run_layers
from recipes.lad_tiny.ramp import PICTURE_LAYER, LowerSkew, change, picture_target, skew_lower, token_target
from recipes.lad_tiny.relations import (
    LOOK_LAYER,
    TWINS,
    draw_related,
    draw_twins,
    look_loss,
    relation_accuracies,
    under,
    visible_twins,
    without_text,
)

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def processor():
    return build_processor()


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(build_config()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    install(model)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def twins(processor):
    return draw_twins("validation", 8, 0, processor)


@pytest.fixture
def related(twins, processor):
    return draw_related(twins, Sheet.of(5, processor), 3, random.Random(0))


class TestLowerSkew:
    def test_a_ramp_rises_by_its_nats_and_shown_tokens_by_their_factor(self):
        owners = torch.zeros(2, 32, dtype=torch.long)
        owners[1, 5] = 2
        plain, marked = token_target(owners, LowerSkew(ramp=1.5, shown=2.5)).double()
        assert float(plain[31] - plain[0]) == pytest.approx(1.5, abs=1e-5)
        assert plain.exp().sum() == pytest.approx(1, abs=1e-5)
        assert float((marked[5] - plain[5]) - (marked[6] - plain[6])) == pytest.approx(math.log(2.5), abs=1e-5)

    def test_pictures_rise_from_the_first_to_the_last(self):
        target = picture_target(4, LowerSkew(picture=0.9))
        assert float(target[3] - target[0]) == pytest.approx(0.9, abs=1e-6)
        assert float(target.exp().sum()) == pytest.approx(1, abs=1e-6)

    def test_only_the_lower_layers_move_and_attention_comes_nearer_to_its_targets(self, model, processor):
        album = draw_album("validation", 14, 0, processor)
        features = encode_images(model.model.visual, album.patches)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        lines = []
        sheets = {n: Sheet.of(n, processor) for n in (2, 4, 8, 12)}
        skew_lower(model, album, features, sheets, 12, 0, LowerSkew(), lines.append)
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        layers = {int(name.split("layers.")[1].split(".")[0]) for name in moved}
        assert layers == set(range(PICTURE_LAYER + 1))
        first, last = (dict(zip(line.split()[4::2], line.split()[5::2], strict=False)) for line in (lines[0], lines[-1]))
        assert float(last["ramp"]) < float(first["ramp"])

    def test_equal_states_have_not_changed(self, model, related, twins):
        features = encode_images(model.model.visual, twins.patches)
        state = run_layers(model.model.language_model.layers[:2], related.asked, lower(model, related.asked, features, 0))
        assert float(change(state, state)) == 0


class TestRelations:
    def test_sets_are_pairs_and_one_single_picture(self, twins, related):
        for images, places, gold in zip(related.asked.images, related.twins, related.asked.gold[:, 0], strict=True):
            groups = [int(i) // TWINS for i in images]
            assert [k for k in range(5) if groups.count(groups[k]) == 1] == [int(gold)]
            assert all(j == -1 or (groups[j] == groups[k] and j != k) for k, j in enumerate(places.tolist()))
            assert places.tolist().count(-1) == 1
        assert len({scene.background for scene in twins.scenes[:TWINS]}) > 1

    def test_the_question_is_the_tasks(self, processor, related):
        text = processor.tokenizer.decode(related.asked.ids[0])
        assert RELATION.replace(" ", "") in text.replace(" ", "")

    def test_masks_open_and_close_what_lies_between_pictures_and_nothing_else(self, related):
        asked = related.asked
        opened, closed = under(asked, "fused"), under(asked, "truncated")
        causal = asked.mask[0, 0]
        new, gone = opened.opened[0, 0] & ~causal, causal & ~closed.mask[0, 0]
        assert torch.equal(opened.mask, asked.mask)
        assert under(asked, "plain") is asked
        pairs = IMAGE_TOKENS**2 * 5 * 4 // 2
        assert int(new.sum()) == int(gone.sum()) == pairs
        assert torch.equal(new, gone.T)

    def test_even_layers_average_both_masks(self, model, twins, related):
        features = encode_images(model.model.visual, twins.patches)
        plain, fused = (forward(model, under(related.asked, mask), features) for mask in ("plain", "fused"))
        assert not torch.allclose(plain.logits, fused.logits)
        asked = under(related.asked, "fused")
        layer = model.model.language_model.layers[0]
        start = lower(model, asked, features, 0)
        normed = layer.input_layernorm(start.hidden)
        outputs = [
            layer.self_attn(normed, attention_mask=mask, position_embeddings=start.turn)[0] for mask in (asked.mask, asked.opened)
        ]
        expected = start.hidden + (outputs[0] + outputs[1]) / 2
        expected = expected + layer.mlp(layer.post_attention_layernorm(expected))
        found = run_layers(model.model.language_model.layers[:1], asked, start).hidden
        assert torch.allclose(found, expected, atol=1e-5)

    def test_a_twin_is_seen_behind_it_or_through_the_opened_mask(self, related):
        fused, plain = visible_twins(related, "fused"), visible_twins(related, "plain")
        assert torch.equal(fused, related.twins)
        assert ((plain < 0).sum(1) == 3).all()
        assert all(j < k for row in plain.tolist() for k, j in enumerate(row))

    def test_without_text_the_pictures_states_are_the_same(self, model, twins, related):
        features = encode_images(model.model.visual, twins.patches)
        whole, cut = related.asked, without_text(related.asked)
        layers = model.model.language_model.layers[:3]
        states = [run_layers(layers, asked, lower(model, asked, features, 0), maps=LOOK_LAYER) for asked in (whole, cut)]
        assert torch.allclose(states[0].hidden[:, : cut.ids.shape[1]], states[1].hidden, atol=1e-5)
        assert torch.allclose(states[0].maps, states[1].maps, atol=1e-6)

    def test_looking_at_the_twin_costs_nothing(self, related):
        asked, n = related.asked, 5
        visible = visible_twins(related, "plain")
        maps = torch.zeros(3, n * IMAGE_TOKENS, len(asked.sheet.prefix))
        places = (asked.sheet.prefix == asked.sheet.image_token).nonzero().flatten().view(n, IMAGE_TOKENS)
        for s, row in enumerate(visible.tolist()):
            for k, j in enumerate(row):
                maps[s, k * IMAGE_TOKENS : (k + 1) * IMAGE_TOKENS, places[j][0] if j >= 0 else 0] = 1
        shown = torch.ones(3, n * IMAGE_TOKENS, dtype=torch.bool)
        assert float(look_loss(maps, visible, asked, shown)) == pytest.approx(0, abs=1e-6)
        assert float(look_loss(maps.flip(1), visible, asked, shown)) > 1


def test_the_shipped_relations_need_what_lies_between_pictures(processor):
    folder = tiny.folder(tiny.RELATIONS)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    install(model)
    album = draw_twins("validation", 20, 1, processor)
    features = encode_images(model.model.visual, album.patches)
    found = relation_accuracies(model, album, features, Sheet.of(5, processor), 100, 0)
    plain, truncated, fused = (found[mask]["accuracy"] for mask in ("plain", "truncated", "fused"))
    assert truncated + 15 < plain < fused - 10
    known = json.loads((folder / "training.json").read_text())
    assert set(known["steps"]) == {"twins", "relations"}
