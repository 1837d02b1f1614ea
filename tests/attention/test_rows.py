"""Rows of attention against a loop over queries, heads and keys."""

from __future__ import annotations

import math

import pytest
import torch

from lad_eval.attention.hooks import AttentionCall
from lad_eval.attention.recorder import last_row
from lad_eval.attention.rows import CHUNK, attention_rows, summed_rows
from lad_eval.errors import UnsupportedModelError

BATCH, HEADS, KV_HEADS, TOKENS, WIDTH = 3, 4, 2, 7, 4
SCALE = 0.7
ROWS = torch.tensor([[0, 4, 6], [2, 3, 6], [6, 5, 1]])


def call(mask=None, tokens=TOKENS, keys=None, **options):
    numbers = torch.Generator().manual_seed(1)
    module = torch.nn.Module()
    query = torch.randn(BATCH, HEADS, tokens, WIDTH, generator=numbers)
    key = torch.randn(BATCH, KV_HEADS, keys or tokens, WIDTH, generator=numbers)
    return AttentionCall(0, module, query, key, mask, {"scaling": SCALE, **options})


def slow(call, sees, cap=None, sinks=None):
    """Float[batch, H, queries, keys]: softmax(q k scale) over the keys k of a query q with `sees(b, q, k)`."""
    full = torch.zeros(BATCH, HEADS, call.query.shape[2], call.key.shape[2])
    for b in range(BATCH):
        for h in range(HEADS):
            for q in range(call.query.shape[2]):
                exps = {}
                for k in range(call.key.shape[2]):
                    if sees(b, q, k):
                        score = float(call.query[b, h, q] @ call.key[b, h // (HEADS // KV_HEADS), k]) * SCALE
                        exps[k] = math.exp(cap * math.tanh(score / cap) if cap else score)
                total = sum(exps.values()) + (math.exp(float(sinks[h])) if sinks is not None else 0.0)
                for k, value in exps.items():
                    full[b, h, q, k] = value / total
    return full


def causal(b, q, k):
    return k <= q


def at(full, rows):
    return full.gather(2, rows[:, None, :, None].expand(-1, full.shape[1], -1, full.shape[3]))


def square(sees):
    return torch.tensor([[[sees(b, q, k) for k in range(TOKENS)] for q in range(TOKENS)] for b in range(BATCH)])[:, None]


@pytest.mark.parametrize(
    ("options", "sees", "more"),
    [
        ({}, causal, {}),
        ({"sliding_window": 3}, lambda b, q, k: q - 3 < k <= q, {}),
        ({"softcap": 0.5}, causal, {"cap": 0.5}),
        ({"s_aux": torch.linspace(-1, 2, HEADS)}, causal, {"sinks": torch.linspace(-1, 2, HEADS)}),
        ({"is_causal": False}, lambda b, q, k: True, {}),
    ],
)
def test_rows_without_a_mask(options, sees, more):
    given = call(**options)
    torch.testing.assert_close(attention_rows(given, ROWS), at(slow(given, sees, **more), ROWS), atol=1e-5, rtol=0)


def test_rows_of_masks_of_every_form():
    def padded(b, q, k):
        return k <= q and (b != 1 or k >= 2)

    expected = at(slow(call(), padded), ROWS)
    entries = square(padded)
    flash = torch.ones(BATCH, TOKENS, dtype=torch.long)
    flash[1, :2] = 0
    additive = torch.zeros(entries.shape).masked_fill(~entries, torch.finfo(torch.float32).min)
    for mask in (entries, additive, flash):
        torch.testing.assert_close(attention_rows(call(mask), ROWS), expected, atol=1e-5, rtol=0)
    one = square(causal)[:1]
    torch.testing.assert_close(attention_rows(call(one), ROWS), at(slow(call(), causal), ROWS), atol=1e-5, rtol=0)


def test_keys_behind_the_prompt_of_a_static_cache_are_not_seen():
    long = call(keys=TOKENS + 5)
    torch.testing.assert_close(attention_rows(long, ROWS), at(slow(long, causal), ROWS), atol=1e-5, rtol=0)


def test_the_last_row_is_one_of_the_rows():
    given = call(square(causal))
    assert torch.equal(last_row(given), attention_rows(given, torch.full((BATCH, 1), TOKENS - 1))[:, :, 0])


def test_sums_in_chunks_of_rows_with_unequal_numbers_and_with_none():
    tokens = 2 * CHUNK + 40
    given = call(tokens=tokens)
    chosen = torch.rand(BATCH, tokens, generator=torch.Generator().manual_seed(2)) < 0.95
    chosen[1] = False
    chosen[2, 30:] = False
    assert int(chosen[0].sum()) > CHUNK
    sums = summed_rows(given, chosen)
    for b in range(BATCH):
        rows = chosen[b].nonzero()[:, 0]
        single = torch.zeros(tokens)
        for row in rows:
            single += attention_rows(given, torch.full((BATCH, 1), int(row)))[b].mean(dim=0)[0]
        torch.testing.assert_close(sums[b], single, atol=1e-4, rtol=1e-4)
    assert not sums[1].any()


def test_sums_do_not_meet_rows_of_padding_that_see_no_key():
    entries = square(causal)
    entries[1, :, :3] = False
    entries[1, :, :, :3] = False
    chosen = torch.zeros(BATCH, TOKENS, dtype=torch.bool)
    chosen[0] = True
    chosen[1, 5] = True
    sums = summed_rows(call(entries), chosen)
    assert sums.isfinite().all()
    torch.testing.assert_close(sums.sum(dim=1), torch.tensor([7.0, 1.0, 0.0]))


def test_permuted_heads_and_other_rows_of_the_batch_do_not_matter():
    given = call()
    chosen = torch.rand(BATCH, TOKENS, generator=torch.Generator().manual_seed(3)) < 0.6
    sums = summed_rows(given, chosen)
    order = torch.tensor([2, 3, 0, 1])  # of the query heads, as [1, 0] permutes the key heads
    turned = AttentionCall(0, given.module, given.query[:, order], given.key[:, [1, 0]], None, given.options)
    torch.testing.assert_close(summed_rows(turned, chosen), sums)
    for b in range(BATCH):
        alone = AttentionCall(0, given.module, given.query[b : b + 1], given.key[b : b + 1], None, given.options)
        torch.testing.assert_close(summed_rows(alone, chosen[b : b + 1]), sums[b : b + 1])


def test_unknown_masks_are_errors():
    with pytest.raises(UnsupportedModelError, match="str attention masks are not supported"):
        attention_rows(call("a block mask"), ROWS)
