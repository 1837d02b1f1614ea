"""PINE against the paper's definition written out token by token, its laws, and its refusals."""

import itertools
import math
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl import modeling_qwen2_vl

from lad_eval.attention.cross_image.importance import Region, importance, shifts
from lad_eval.attention.cross_image.pine import Pine
from lad_eval.attention.hooks import attention_layers
from lad_eval.attention.interventions import parse_intervention
from lad_eval.attention.layer_hooks import observe_rotary
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.models.registry import load_model
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.request import Permutation
from tests.attention.cross_image_prompts import logits, prepared, under
from tests.attention.test_tied import ordered


@pytest.fixture(scope="module")
def sample():
    return next(load_task("scenes_random_n4").samples("test"))


def ranked_by_hand(query, keys, own, segment, scaling, extents):
    """{image: (first position from the end of the images, rank)} of one query group: the nearest last, by the definition.

    Args:
        query: the vectors of the group, all tokens of an image or one of the text.
        keys: vectors of all tokens.
        own: the group's image, -1 for text.
        segment: the image of each key.
        scaling: of the scores.
        extents: positions that each image takes.
    """
    others = [k for k in range(len(extents)) if k != own]
    values = dict.fromkeys(others, 0.0)
    for q in query:
        seen = [u for u, image in enumerate(segment) if image in others]
        scores = [math.exp(scaling * sum(float(a) * float(b) for a, b in zip(q, keys[u], strict=True))) for u in seen]
        for k in others:
            of_k = [score for u, score in zip(seen, scores, strict=True) if segment[u] == k]
            values[k] += sum(of_k) / sum(scores) / len(of_k)
    nearest_first = ([own] if own >= 0 else []) + sorted(others, key=lambda k: -values[k])
    places, back = {}, 0
    for k in nearest_first:
        back += extents[k]
        places[k] = -back
    return places, values


def test_the_ranking_is_the_papers_on_two_heads_and_three_images_of_unequal_length():
    generator = torch.Generator().manual_seed(5)
    segment = [-1, -1, 0, 0, 0, 1, 1, 2, 2, 2, 2, -1, -1, -1]
    extents, scaling = [3, 2, 4], 8**-0.5
    query, key = (torch.randn(1, 2, len(segment), 8, generator=generator, dtype=torch.float64) * 2 for _ in range(2))
    region = Region(torch.tensor([segment]), torch.tensor([[2, 5, 7]]), torch.tensor([extents]))
    own = region.segment
    values = importance(query, key, own, own, scaling)
    moved = shifts(values, own, region)
    rankings = set()
    for head, token in itertools.product(range(2), range(2, len(segment))):
        image = segment[token]
        group = [query[0, head, t] for t in range(len(segment)) if t == token or (image >= 0 and segment[t] == image)]
        places, by_hand = ranked_by_hand(group, key[0, head], image, segment, scaling, extents)
        for k, value in by_hand.items():
            assert float(values[0, head, token, k]) == pytest.approx(value, rel=1e-5)
        assert moved[0, head, token].tolist() == [11 + places[k] - (2, 5, 7)[k] for k in range(3)]
        rankings.add(tuple(sorted(places, key=lambda k: -places[k])))
    assert len(rankings) >= 4  # of the six that three images have


def test_a_small_ranking_in_numbers():
    """Two keys an image; the scores of the text's query are ln 4 and 0, ln 2 twice, 0 twice: means 2.5, 2 and 1 of 11."""
    key = torch.tensor([[math.log(4)], [0], [math.log(2)], [math.log(2)], [0], [0]])[None, None]
    segment = torch.tensor([[0, 0, 1, 1, 2, 2]])
    text = torch.tensor([[-1]])
    values = importance(torch.ones(1, 1, 1, 1), key, text, segment, 1.0)
    torch.testing.assert_close(values, torch.tensor([[[[2.5, 2.0, 1.0]]]]) / 11)
    region = Region(segment, torch.tensor([[0, 2, 4]]), torch.tensor([[2, 2, 2]]))
    assert shifts(values, text, region).tolist() == [[[[4, 0, -4]]]]  # the most important stands last
    tied = torch.ones(1, 1, 1, 3)
    assert shifts(tied, text, region).tolist() == [[[[4, 0, -4]]]]  # the first displayed is the nearest
    assert shifts(tied, torch.tensor([[1]]), region).tolist() == [[[[2, 2, -4]]]]  # after the query's own


def attention_by_hand(model, layer, positions, query, key, value, layout, segments):
    """The layer's output before its projection, Float[batch, T, H d]: every query's keys at positions of their own."""
    batch, tokens = layout.ids.shape
    module = attention_layers(model)[layer]
    width = module.head_dim
    frequencies = model.get_decoder().rotary_emb.inv_freq.double()
    sections = (getattr(model.config.get_text_config(), "rope_parameters", None) or {}).get("mrope_section")
    axes = positions.reshape(-1, *positions.shape[-2:]).expand(-1, batch, -1)
    axis_of = torch.zeros(width // 2, dtype=torch.long)
    if sections is not None:
        axis_of = torch.tensor([axis for axis, count in enumerate(sections) for _ in range(count)])

    def at(vector, place):
        """A vector as complex numbers, turned to a position of several axes."""
        first, second = vector.double().chunk(2)
        return torch.complex(first, second) * torch.exp(1j * place[axis_of] * frequencies)

    heads = query.shape[-1] // width
    groups = heads // (key.shape[-1] // width)
    output = torch.zeros(batch, tokens, heads, width, dtype=torch.float64)
    for b in range(batch):
        ranges = segments[b]
        segment = [next((k for k, (s, e) in enumerate(ranges) if s <= t < e), -1) for t in range(tokens)]
        place = axes[:, b].double().T  # [T, axes]
        edges = [float(place[s, 0]) for s, _ in ranges] + [float(place[ranges[-1][1], 0])]
        extents = [int(after - before) for before, after in itertools.pairwise(edges)]
        real = layout.attended[b].tolist()
        for h, t in itertools.product(range(heads), range(tokens)):
            if not real[t]:
                continue
            k_vectors = key[b].view(tokens, -1, width)[:, h // groups]
            q_vectors = query[b].view(tokens, -1, width)[:, h]
            own = segment[t]
            moved = dict.fromkeys(range(len(ranges)), 0.0)
            if own >= 0 or t >= ranges[-1][1]:
                group = [q_vectors[u] for u in range(tokens) if u == t or (own >= 0 and segment[u] == own)]
                places, _ = ranked_by_hand(group, k_vectors, own, segment, width**-0.5, extents)
                moved = {k: edges[-1] + places[k] - edges[k] for k in places}
            mine = at(q_vectors[t], place[t] + (moved[own] if own >= 0 else 0.0))
            seen = [u for u in range(tokens) if real[u] and (u <= t or (own >= 0 and segment[u] >= 0 and segment[u] != own))]
            theirs = torch.stack([at(k_vectors[u], place[u] + (moved[segment[u]] if segment[u] >= 0 else 0.0)) for u in seen])
            weights = ((theirs.conj() * mine).real.sum(dim=1) * width**-0.5).softmax(dim=0)
            values = value[b].view(tokens, -1, width)[seen, h // groups].double()
            output[b, t, h] = weights @ values
    return output.flatten(2)


@pytest.mark.parametrize("family", ["qwen2.5-vl", pytest.param("llava-onevision", marks=pytest.mark.slow)])
def test_a_layers_output_is_the_definition_written_out(lab, family):
    """Rows of unequal lengths, images of unequal sizes, keys shared between heads, rotary positions of three axes and of one."""
    model, layout, inputs = prepared(lab, family, lab.ROWS[:2])
    module, taken, positions = attention_layers(model)[0], {}, []

    def take(name):
        return lambda _, args, output: taken.update({name: (args[0], output)})

    with ExitStack() as stack:
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            stack.callback(getattr(module, name).register_forward_hook(take(name)).remove)
        stack.enter_context(observe_rotary(model, lambda ids, _: positions.append(ids)))
        under(Pine(), model, layout, inputs)
    query, key, value = (taken[name][1].detach() for name in ("q_proj", "k_proj", "v_proj"))
    expected = attention_by_hand(model, 0, positions[0], query, key, value, layout, layout.spans.delimited.tolist())
    real = layout.attended
    torch.testing.assert_close(taken["o_proj"][0].double()[real], expected[real], atol=2e-5, rtol=0)
    eager, layout, inputs = prepared(lab, family, lab.ROWS[:2], implementation="eager")
    torch.testing.assert_close(under(Pine(), eager, layout, inputs), under(Pine(), model, layout, inputs), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("family", "orders"),
    [
        ("qwen2-vl", [(0, 1, 2, 3), (3, 1, 0, 2)]),  # rotary positions of three axes
        pytest.param("qwen2-vl", list(itertools.permutations(range(4))), marks=pytest.mark.slow),
        pytest.param("qwen3-vl", list(itertools.permutations(range(4))), marks=pytest.mark.slow),  # interleaved
        ("llava-onevision", [(0, 1, 2, 3), (2, 0, 3, 1), (3, 2, 1, 0)]),  # of one
        ("internvl", [(0, 1, 2, 3), (2, 0, 3, 1)]),  # the same text after every image
        pytest.param("internvl", list(itertools.permutations(range(4))), marks=pytest.mark.slow),
        pytest.param("llava-1.5", [(0, 1, 2, 3), (2, 0, 3, 1)], marks=pytest.mark.slow),
    ],
)
def test_attention_moves_with_the_images_and_places_are_answered_alike(sample, family, orders):
    model = load_model(f"random:{family}", device="cpu", batch_size=8)
    plain, plain_by_image = ordered(model, sample, orders)
    assert np.ptp(plain.log_probs, axis=0).max() > 0.1
    evidence, by_image = ordered(model, sample, orders, Pine())
    assert np.ptp(evidence.log_probs, axis=0).max() < 1e-4
    assert np.ptp(by_image, axis=0).max() < 1e-5 < np.ptp(plain_by_image, axis=0).max()
    again, _ = ordered(model, sample, orders)
    assert (again.log_probs == plain.log_probs).all()


class Sized:
    """An image that is shown in a given size."""

    def __init__(self, image, size):
        self.image, self.size, self.digest = image, size, f"{image.digest} {size}"

    def load(self):
        return self.image.load().resize(self.size)


def test_images_may_differ_in_size(sample):
    model = load_model("random:qwen2-vl", device="cpu", batch_size=1, image_preparation="native")
    sizes = [(56, 56), (112, 56), (56, 140), (84, 84)]
    shown = replace(sample, images=tuple(Sized(*each) for each in zip(sample.images, sizes, strict=True)))
    evidence, by_image = ordered(model, shown, [(0, 1, 2, 3), (2, 0, 3, 1), (3, 2, 1, 0)], Pine())
    assert np.ptp(evidence.log_probs, axis=0).max() < 1e-4
    assert np.ptp(by_image, axis=0).max() < 1e-5


def test_equal_images_are_exchanged_at_most(sample):
    model = load_model("random:qwen2-vl", device="cpu", batch_size=1)
    alike = replace(sample, images=(*sample.images[:3], sample.images[0]))
    evidence, by_image = ordered(model, alike, [(0, 1, 2, 3), (3, 1, 2, 0), (1, 3, 0, 2), (2, 0, 1, 3)], Pine())
    assert np.ptp(evidence.log_probs, axis=0).max() < 1e-4
    assert np.ptp(by_image[..., 1:3], axis=0).max() < 1e-5
    assert np.ptp(by_image[..., [0, 3]].sum(axis=-1), axis=0).max() < 1e-5  # which of the two is nearer differs by head


def test_tokens_after_the_prompt_see_the_images_in_no_order_either(sample):
    model = load_model("random:qwen2-vl", device="cpu", batch_size=8)
    requests = [
        replace(load_task("scenes_random_n4").request(sample, Permutation(order)), identifiers=("13", "14", "15", "26"))
        for order in ((0, 1, 2, 3), (2, 0, 3, 1), (3, 2, 1, 0))
    ]
    plain, texts = model.evidence(requests), model.generate(requests, max_new_tokens=6)
    with model.under(Pine()):
        evidence, written = model.evidence(requests), model.generate(requests, max_new_tokens=6)
    assert (evidence.forward_passes == 2).all()
    assert np.ptp(evidence.log_probs, axis=0).max() < 1e-4 < np.ptp(plain.log_probs, axis=0).max()
    assert len(set(written)) == 1 < len(set(texts))


def test_a_prompt_of_one_image_is_left_as_it_is(lab):
    rows = [(images[:1], text) for images, text in lab.ROWS[:1]]
    model, layout, inputs = prepared(lab, "qwen2.5-vl", rows, images=1)
    assert torch.equal(under(Pine(), model, layout, inputs), logits(model, inputs))


@pytest.mark.parametrize(
    ("family", "says"),
    [
        ("qwen3.5", "has layers without attention"),
        ("gemma3", "puts text between images"),
        ("cohere2-vision", "rotary positions in another form"),
        ("glm4v", "rotary positions in another form"),
        ("llama4", "rotary positions in another form"),
        ("molmo2", "whose frequencies vary"),
    ],
)
def test_a_model_whose_images_cannot_be_moved_is_refused(sample, family, says):
    model = load_model(f"random:{family}", device="cpu", batch_size=1)
    with pytest.raises(UnsupportedModelError, match=says):
        ordered(model, sample, [(0, 1, 2, 3)], Pine())


def test_keys_that_are_rotated_in_another_way_are_refused(sample, monkeypatch):
    model = load_model("random:qwen2-vl", device="cpu", batch_size=1)
    rotary, rotate = model.model.get_decoder().rotary_emb, modeling_qwen2_vl.apply_rotary_pos_emb
    with monkeypatch.context() as patch:
        patch.setattr(modeling_qwen2_vl, "apply_rotary_pos_emb", lambda q, k, cos, sin: rotate(q, k, cos, -sin))
        with pytest.raises(UnsupportedModelError, match="in another form"):
            ordered(model, sample, [(0, 1, 2, 3)], Pine())
    monkeypatch.setattr(rotary, "inv_freq", rotary.inv_freq.flip(0))
    ordered(model, sample, [(0, 1, 2, 3)], Pine())
    other = rotary.forward
    monkeypatch.setattr(rotary, "forward", lambda x, ids: tuple(part.flip(-1) for part in other(x, ids)))
    with pytest.raises(UnsupportedModelError, match="in another form"):
        ordered(model, sample, [(0, 1, 2, 3)], Pine())


def test_pruned_prompts_are_refused(sample):
    model = load_model("random:qwen2-vl", device="cpu", batch_size=1)
    with pytest.raises(UserError, match="leave out what drops tokens"):
        ordered(model, sample, [(0, 1, 2, 3)], parse_intervention("fastv(keep=0.5)+pine"))
