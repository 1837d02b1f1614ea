"""Scores of the pruners, worked by hand and against loops over queries, keys and heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lad_eval.attention.hooks import AttentionCall
from lad_eval.attention.pruning.scores import (
    himap_image,
    himap_text,
    information,
    pyramiddrop,
    ranks,
    rotary_weights,
    sparsevlm,
    sparsevlm_raters,
    text_after_images,
    tokencarve,
)
from lad_eval.errors import UnsupportedModelError

T, HEADS, WIDTH = 8, 4, 3
OWNER = torch.tensor([[-1, 0, 0, -1, 1, 1, -1, -1], [-1, -1, 0, -1, 1, -1, -1, -1], [0, -1, 1, 1, 1, 1, 1, -1]])
VISUAL = OWNER >= 0
ATTENDED = torch.tensor([[1] * 8, [0] + [1] * 7, [1] * 8]).bool()
REMAINING = ATTENDED.clone()
REMAINING[0, 1] = REMAINING[1, 4] = REMAINING[2, 2:4] = False


def call(positions=None, seed=0, heads=None):
    """Queries and keys of all tokens of three prompts, or of those at `positions`."""
    numbers = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(3, HEADS, T, WIDTH, generator=numbers) for _ in range(2))
    if heads is not None:
        query, key = query[:, heads], key[:, heads]
    mask = torch.ones(T, T, dtype=torch.bool).tril() & ATTENDED[:, None, None]
    if positions is not None:
        index = positions.clamp(min=0)
        query, key = (x.gather(2, index[:, None, :, None].expand(-1, HEADS, -1, WIDTH)) for x in (query, key))
        mask = mask.gather(2, index[:, None, :, None].expand(-1, 1, -1, T)).gather(
            3, index[:, None, None].expand(-1, 1, index.shape[1], -1)
        )
        mask = mask & (positions >= 0)[:, None, None] | torch.eye(index.shape[1], dtype=torch.bool)
    return AttentionCall(1, torch.nn.Module(), query, key, mask, {}, positions)


def weights(remaining=ATTENDED, seed=0):
    """Float[3, T, T]: attention of token by token, mean of the heads, in a loop; over the remaining tokens."""
    given, full = call(seed=seed), torch.zeros(3, T, T)
    for b in range(3):
        for h in range(HEADS):
            for q in range(T):
                keys = [k for k in range(q + 1) if remaining[b, k]]
                exps = {k: float((given.query[b, h, q] @ given.key[b, h, k] / WIDTH**0.5).exp()) for k in keys}
                for k, value in exps.items():
                    full[b, q, k] += value / sum(exps.values()) / HEADS
    return full


COMPACT = torch.tensor([[0, 2, 3, 4, 5, 6, 7], [-1, 1, 2, 3, 5, 6, 7], [-1, 0, 1, 4, 5, 6, 7]])


@pytest.mark.parametrize(("positions", "remaining"), [(None, ATTENDED), (COMPACT, REMAINING)])
def test_sums_of_rows_are_those_of_a_loop(positions, remaining):
    full, given = weights(remaining), call(positions)
    text = text_after_images(VISUAL, ATTENDED)
    end = torch.tensor([6, 5, 7])
    expected = {
        "pyramiddrop": torch.stack([full[b, end[b]] for b in range(3)]),
        "himap text": torch.stack([full[b, text[b]].sum(dim=0) for b in range(3)]),
        "himap image": torch.stack([full[b, VISUAL[b] & remaining[b]].sum(dim=0) for b in range(3)]),
        "sparsevlm": torch.stack([full[b, text[b]].mean(dim=0) for b in range(3)]),
    }
    made = {
        "pyramiddrop": pyramiddrop(given, end, remaining),
        "himap text": himap_text(given, text, remaining),
        "himap image": himap_image(given, VISUAL, remaining),
        "sparsevlm": sparsevlm(given, text, remaining),
    }
    for name, scores in made.items():
        torch.testing.assert_close(scores, expected[name], atol=1e-5, rtol=0, msg=name)
        assert not scores[~remaining].any()


def test_heads_may_be_permuted():
    text = text_after_images(VISUAL, ATTENDED)
    turned = call(heads=torch.tensor([2, 0, 3, 1]))
    torch.testing.assert_close(himap_text(turned, text, ATTENDED), himap_text(call(), text, ATTENDED))


def test_a_layer_with_fewer_queries_than_keys_is_read_at_the_remaining_tokens():
    whole = call()
    index = COMPACT.clamp(min=0)
    query = whole.query.gather(2, index[:, None, :, None].expand(-1, HEADS, -1, WIDTH))
    mask = whole.mask.gather(2, index[:, None, :, None].expand(-1, 1, -1, T))
    positions = torch.where(ATTENDED, torch.arange(T), -1)  # of keys of all tokens
    fewer = AttentionCall(2, whole.module, query, whole.key, mask, {}, positions)
    text = text_after_images(VISUAL, ATTENDED)
    torch.testing.assert_close(himap_text(fewer, text, REMAINING), himap_text(whole, text, ATTENDED))
    last = AttentionCall(2, whole.module, query[:, :, -1:], whole.key, mask[:, :, -1:], {}, positions)
    with pytest.raises(UnsupportedModelError, match="Decoder layer 2 is not run for the tokens whose attention is needed there"):
        himap_text(last, text, REMAINING)


def test_text_behind_the_images():
    assert text_after_images(VISUAL, ATTENDED).int().tolist() == [[0] * 6 + [1, 1], [0] * 5 + [1, 1, 1], [0] * 7 + [1]]


def test_raters_by_hand():
    # Tokens 0 and 1 are visual, 2 to 4 are text. Rows of v . t: (0, ln 1.9, ln 3) and (0, 0, 0), so that softmax gives 1, 1.9
    # and 3 of 5.9, and three times 1/3: r = 0.251, 0.328, 0.421 of mean 1/3.
    a, b = np.log(1.9), np.log(3)
    embeddings = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [a, 0.0], [b, 0.0]]])
    visual, attended = torch.tensor([[1, 1, 0, 0, 0]]).bool(), torch.ones(1, 5, dtype=torch.bool)
    assert sparsevlm_raters(embeddings, visual, attended).nonzero()[:, 1].tolist() == [4]
    assert sparsevlm_raters(torch.zeros(1, 5, 2), visual, attended).nonzero()[:, 1].tolist() == [2, 3, 4], "of equals all"


def test_raters_of_a_row_do_not_depend_on_its_batch():
    embeddings = torch.randn(3, T, 6, generator=torch.Generator().manual_seed(4))
    together = sparsevlm_raters(embeddings, VISUAL, ATTENDED)
    for b in range(3):
        images, words = embeddings[b, VISUAL[b]], [t for t in range(T) if ATTENDED[b, t] and t > int(VISUAL[b].nonzero().max())]
        nearness = torch.stack([torch.stack([v @ embeddings[b, t] for t in words]).softmax(0) for v in images]).mean(dim=0)
        expected = [t for t, r in zip(words, nearness, strict=True) if r > nearness.mean()] or words
        assert together[b].nonzero()[:, 0].tolist() == expected
        assert torch.equal(sparsevlm_raters(embeddings[b : b + 1], VISUAL[b : b + 1], ATTENDED[b : b + 1])[0], together[b])


def test_information_is_the_l1_norm_of_the_rows_of_u_s():
    hidden = torch.randn(3, T, 4, generator=torch.Generator().manual_seed(5))
    made = information(hidden, OWNER)
    assert not made[OWNER < 0].any()
    for b in range(3):
        for image in range(2):
            member = (OWNER[b] == image).numpy()
            left, singular, _ = np.linalg.svd(hidden[b].numpy()[member].astype(np.float64), full_matrices=False)
            np.testing.assert_allclose(made[b].numpy()[member], np.abs(left @ np.diag(singular)).sum(axis=1), atol=1e-5)


def test_information_by_hand():
    # Orthogonal rows are U S themselves, whatever the order of the directions.
    hidden = torch.tensor([[[0.0, 3.0], [5.0, 0.0], [9.0, 9.0]]])
    torch.testing.assert_close(information(hidden, torch.tensor([[0, 0, -1]])), torch.tensor([[3.0, 5.0, 0.0]]))


def test_ranks_by_hand():
    scores = torch.tensor([[9.0, 0.1, 0.4, 0.0, 0.4, 0.2, 0.0, 0.0]])
    groups = torch.tensor([[-1, 0, 0, -1, 0, 1, 1, 1]])
    assert ranks(scores, groups).tolist() == [[0, 1, 3, 0, 2, 3, 2, 1]]
    contribution = torch.tensor([[0.0, 7.0, 5.0, 0.0, 6.0, 0.0, 1.0, 2.0]])
    assert ranks(contribution, groups).tolist() == [[0, 3, 1, 0, 2, 1, 2, 3]]
    assert tokencarve(scores, contribution, groups).tolist() == [[0, 2, 2, 0, 2, 2, 2, 2]]


def test_what_rotary_positions_alone_give_a_key():
    """Of width 4, two entries of which turn by a right angle a position: the product is 4, 2, 0, 2 at distances 0 to 3."""
    module = torch.nn.Module()
    call = AttentionCall(0, module, torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 5, 4), None, {})
    angles = torch.arange(5.0)[None, :, None] * torch.pi / 2
    tables = (angles.cos().expand(1, 5, 2), angles.sin().expand(1, 5, 2))
    queries, keys = torch.tensor([[3]]), torch.arange(5)[None]
    expected = torch.tensor([[[2.0, 0.0, 2.0, 4.0, 2.0]]]) / 2
    weights = rotary_weights(tables, queries, keys, call)
    torch.testing.assert_close(weights, expected.clamp(min=0.02), atol=1e-6, rtol=0)
    turns = torch.complex(tables[0][..., :1], tables[1][..., :1])
    torch.testing.assert_close(rotary_weights(turns, queries, keys, call), weights)
    for other in (None, (tables[0][None], tables[1][None])):
        with pytest.raises(UnsupportedModelError, match="Module has no rotary positions in one table, and sparsevlm-plus"):
            rotary_weights(other, queries, keys, call)
