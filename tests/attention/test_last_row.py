"""One row of attention against a loop over heads and keys, for every form of mask and option that transformers passes."""

from __future__ import annotations

import math

import pytest
import torch

from lad_eval.attention.hooks import AttentionCall
from lad_eval.attention.recorder import last_row
from lad_eval.errors import UnsupportedModelError

BATCH, HEADS, KV_HEADS, TOKENS, WIDTH = 2, 6, 2, 9, 4
SCALE = 0.7


def call(mask=None, keys=TOKENS, causal=True, **options):
    numbers = torch.Generator().manual_seed(0)
    module = torch.nn.Module()
    module.is_causal = causal
    return AttentionCall(
        layer=0,
        module=module,
        query=torch.randn(BATCH, HEADS, TOKENS, WIDTH, generator=numbers),
        key=torch.randn(BATCH, KV_HEADS, keys, WIDTH, generator=numbers),
        mask=mask,
        options={"scaling": SCALE, **options},
    )


def slow(call, seen, bias=None, cap=None, sinks=None):
    """softmax(q k scale) over the keys in `seen[b]`, one head and key at a time."""
    keys = call.key.shape[2]
    rows = torch.zeros(BATCH, HEADS, keys, dtype=torch.float64)
    for b in range(BATCH):
        for h in range(HEADS):
            exps = {}
            for t in seen[b]:
                score = float(call.query[b, h, -1].double() @ call.key[b, h // (HEADS // KV_HEADS), t].double()) * SCALE
                score = cap * math.tanh(score / cap) if cap else score
                exps[t] = math.exp(score + (float(bias[b, h, t]) if bias is not None else 0.0))
            total = sum(exps.values()) + (math.exp(float(sinks[h])) if sinks is not None else 0.0)
            for t, value in exps.items():
                rows[b, h, t] = value / total
    return rows.float()


ALL = [range(TOKENS)] * BATCH
PADDED = [range(TOKENS), range(3, TOKENS)]


def padded_mask():
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril().repeat(BATCH, 1, 1, 1)
    mask[1, :, :, :3] = False
    return mask


def test_no_mask():
    torch.testing.assert_close(last_row(call()), slow(call(), ALL))


def test_default_scale_is_the_root_of_the_width():
    given = call(scaling=None)
    torch.testing.assert_close(last_row(given), last_row(call(scaling=0.5)))


def test_boolean_mask():
    torch.testing.assert_close(last_row(call(padded_mask())), slow(call(), PADDED))


@pytest.mark.parametrize("low", [-torch.inf, torch.finfo(torch.float32).min])
def test_additive_mask(low):
    mask = torch.zeros(BATCH, 1, TOKENS, TOKENS).masked_fill(~padded_mask(), low)
    torch.testing.assert_close(last_row(call(mask)), slow(call(), PADDED))


def test_additive_mask_of_its_own_for_every_head():
    bias = torch.linspace(-2, 2, BATCH * HEADS * TOKENS).reshape(BATCH, HEADS, 1, TOKENS)
    torch.testing.assert_close(last_row(call(bias)), slow(call(), ALL, bias=bias[:, :, 0]))


def test_mask_of_one_row_for_the_whole_batch():
    mask = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool)
    mask[..., 4] = False
    torch.testing.assert_close(last_row(call(mask)), slow(call(), [[t for t in range(TOKENS) if t != 4]] * BATCH))


def test_flash_mask():
    mask = torch.ones(BATCH, TOKENS, dtype=torch.long)
    mask[1, :3] = 0
    torch.testing.assert_close(last_row(call(mask)), slow(call(), PADDED))


def test_static_tail_without_a_mask():
    long = call(keys=TOKENS + 5)
    torch.testing.assert_close(last_row(long), slow(long, ALL))


def test_static_tail_with_masks():
    long = call(keys=TOKENS + 5)
    flash = torch.ones(BATCH, TOKENS, dtype=torch.long)
    torch.testing.assert_close(last_row(call(flash, keys=TOKENS + 5)), slow(long, ALL))
    square = torch.zeros(BATCH, 1, TOKENS, TOKENS + 5, dtype=torch.bool)
    square[..., :TOKENS] = padded_mask()
    torch.testing.assert_close(last_row(call(square, keys=TOKENS + 5)), slow(long, PADDED))


def test_keys_of_a_layer_that_is_not_causal_are_all_seen():
    long = call(keys=TOKENS + 5, causal=False)
    torch.testing.assert_close(last_row(long), slow(long, [range(TOKENS + 5)] * BATCH))
    asked = call(keys=TOKENS + 5, is_causal=False)
    torch.testing.assert_close(last_row(asked), slow(asked, [range(TOKENS + 5)] * BATCH))


@pytest.mark.parametrize("window", [1, 4, 50])
def test_sliding_window_counts_the_query_itself(window):
    seen = [range(max(0, TOKENS - window), TOKENS)] * BATCH
    torch.testing.assert_close(last_row(call(sliding_window=window)), slow(call(), seen))


def test_soft_cap_comes_before_the_mask():
    torch.testing.assert_close(last_row(call(padded_mask(), softcap=0.5)), slow(call(), PADDED, cap=0.5))


def test_sinks_take_their_share():
    sinks = torch.linspace(-1, 2, HEADS)
    row = last_row(call(padded_mask(), s_aux=sinks))
    torch.testing.assert_close(row, slow(call(), PADDED, sinks=sinks))
    assert (row.sum(dim=-1) < 1).all()


def test_unknown_masks_and_biases_are_errors():
    with pytest.raises(UnsupportedModelError, match="str attention masks are not supported; use attn_implementation sdpa"):
        last_row(call("a block mask"))
    with pytest.raises(UnsupportedModelError, match="adds a position bias"):
        last_row(call(position_bias=torch.zeros(1)))
