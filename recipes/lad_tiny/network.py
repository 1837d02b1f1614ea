"""The model's own modules, run fast: equal pictures in one batch, and many questions about one set of pictures.

Questions of a set share the pictures' prefix under a block mask, so that a set of N pictures and Q questions
costs one prefix and Q captions. Results equal the ordinary forward's (tests/models/test_tiny.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from recipes.lad_tiny.data import Album, Sheet, as_pixels

ATTENTION = "lad_tiny_rows"


def encode_images(visual: Any, patches: Tensor) -> Tensor:
    """Picture tokens [n, 16, width] of stored patches [n, 64, 192]."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
    from transformers.vision_utils import get_vision_position_ids

    pixels = as_pixels(patches)
    count, length, _ = pixels.shape
    weight = visual.patch_embed.proj.weight.sum(2).flatten(1)
    hidden = functional.linear(pixels, weight)
    side = int(length**0.5)
    grid = torch.tensor([[1, side, side]], device=pixels.device)
    cos, sin = visual.rotary_pos_emb(hidden, get_vision_position_ids(grid, visual.spatial_merge_size))
    for block in visual.blocks:
        attention = block.attn
        qkv = attention.qkv(block.norm1(hidden)).view(count, length, 3, attention.num_heads, -1)
        q, k = apply_rotary_pos_emb_vision(qkv[:, :, 0], qkv[:, :, 1], cos, sin)
        mixed = functional.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), qkv[:, :, 2].transpose(1, 2))
        hidden = hidden + attention.proj(mixed.transpose(1, 2).flatten(2))
        hidden = hidden + block.mlp(block.norm2(hidden))
    tokens: Tensor = visual.merger(hidden.flatten(0, 1))
    return tokens.view(count, -1, tokens.shape[-1])


@dataclass
class Questions:
    """Q questions about each of B sets of N pictures; see `pack`."""

    sheet: Sheet
    images: Tensor  # [B, N] album indices in displayed order
    gold: Tensor  # [B, Q] positions
    ids: Tensor  # [B, T]
    positions: Tensor  # [3, B, T]
    mask: Tensor  # bool [B or 1, 1, T, T]
    rows: Tensor  # [B, Q] index of each question's last token
    opened: Tensor | None = None  # bool [1, 1, T, T]: even layers average attention under `mask` and under this


@dataclass
class Trace:
    """What a forward pass leaves behind."""

    logits: Tensor  # [B, Q, A + 1, vocabulary], after the question and after every token of the answer
    attention: Tensor  # [B, Q, layers, N], mean over heads, of the question's last token
    row_states: list[Tensor]  # each [B, Q, width], after every layer
    end_states: list[Tensor]  # each [B, N, width], of the pictures' end tokens, after every layer


def pack(album: Album, sheet: Sheet, images: Tensor, gold: Tensor, turned: Tensor, spoken: Tensor | None = None) -> Questions:
    """Prefix and question blocks of B sets: images [B, N], gold [B, Q] positions, turned [B, Q] 0 or 1.

    After every question stands an answer, that of position `spoken` [B, Q] (default: gold).
    """
    device = album.captions.device
    sets, asked = gold.shape
    which = images.gather(1, gold)
    caption, length = album.captions[which, turned], album.lengths[which, turned]
    words, tail = caption.shape[-1], len(sheet.tail)
    answer = sheet.answers.to(device)[gold if spoken is None else spoken][..., :-1]
    size = words + tail + answer.shape[-1]
    blocks = torch.zeros(sets, asked, size, dtype=torch.long, device=device)
    blocks[..., :words] = caption
    at = length[..., None] + torch.arange(tail, device=device)
    blocks.scatter_(2, at, sheet.tail.to(device).expand(sets, asked, tail))
    blocks.scatter_(2, (length + tail)[..., None] + torch.arange(answer.shape[-1], device=device), answer)
    prefix = len(sheet.prefix)
    ids = torch.cat((sheet.prefix.to(device).expand(sets, prefix), blocks.flatten(1)), 1)
    start = int(sheet.positions.max()) + 1
    block_positions = (start + torch.arange(size, device=device)).repeat(asked)
    positions = torch.cat((sheet.positions.to(device), block_positions.expand(3, -1)), 1)
    rows = prefix + torch.arange(asked, device=device) * size + length + tail - 1
    return Questions(sheet, images, gold, ids, positions[:, None].expand(3, sets, -1), _mask(prefix, asked, size, device), rows)


def _mask(prefix: int, asked: int, size: int, device: torch.device) -> Tensor:
    block = torch.cat((torch.full((prefix,), -1), torch.arange(asked).repeat_interleave(size)))
    order = torch.arange(len(block))
    seen = (order[:, None] >= order) & ((block == -1) | (block[:, None] == block))
    return seen[None, None].to(device)


@dataclass
class _Rows:
    """Where the attention function finds the rows to keep, and where it leaves them."""

    rows: Tensor | None = None
    span: Tensor | None = None
    opened: Tensor | None = None
    pictures: Tensor | None = None
    maps: int | None = None
    map: Tensor | None = None
    kept: list[Tensor] = field(default_factory=list)


_now = _Rows()


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Ordinary attention; of the kept rows also the weights, summed over each picture and averaged over heads."""
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    if _now.opened is not None and module.layer_idx % 2 == 0:
        out = (out + functional.scaled_dot_product_attention(query, key, value, attn_mask=_now.opened, scale=scaling)) / 2
    if _now.maps == module.layer_idx and _now.span is not None:
        _now.map = _map(query, key, mask, scaling)
    if _now.rows is not None and _now.span is not None:
        sets, heads, _length, width = query.shape
        rows = _now.rows
        chosen = query.gather(2, rows[:, None, :, None].expand(sets, heads, rows.shape[1], width))
        scores = (chosen @ key.transpose(2, 3)) * scaling
        seen = mask[:, 0].expand(sets, -1, -1).gather(1, rows[..., None].expand(*rows.shape, mask.shape[-1]))
        weights = scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1)
        _now.kept.append((weights[..., : len(_now.span)] @ _now.span).mean(1))
    return out.transpose(1, 2), None


def _map(query: Tensor, key: Tensor, mask: Tensor, scaling: float) -> Tensor:
    """Attention [B, 16 N, prefix] of the visual tokens, mean over heads."""
    assert _now.pictures is not None
    assert _now.span is not None
    assert _now.maps is not None
    length = len(_now.span)
    scores = (query[:, :, _now.pictures] @ key[:, :, :length].transpose(2, 3)) * scaling
    parts = [mask] if _now.opened is None or _now.maps % 2 else [mask, _now.opened]
    weights = [scores.masked_fill(~part[:, :, _now.pictures, :length], -torch.inf).softmax(-1).mean(1) for part in parts]
    return torch.stack(weights).mean(0)


def install(model: Any) -> None:
    """Gives the decoder the attention function above."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attention)
    model.model.language_model.config._attn_implementation = ATTENTION


@dataclass
class State:
    """Hidden states below a layer, and the rotary angles."""

    hidden: Tensor  # [B, T, width]
    turn: tuple[Tensor, Tensor]
    row_states: list[Tensor]
    end_states: list[Tensor]
    attention: list[Tensor]
    maps: Tensor | None = None  # [B, 16 N, prefix], the visual tokens' attention in one layer


def forward(model: Any, asked: Questions, features: Tensor) -> Trace:
    """Runs the decoder; features [album, 16, width] are the pictures' tokens."""
    layers = model.config.text_config.num_hidden_layers
    return upper(model, asked, lower(model, asked, features, layers), layers)


def lower(model: Any, asked: Questions, features: Tensor, stop: int) -> State:
    """The embeddings and the layers before `stop`."""
    decoder = model.model.language_model
    sheet, device = asked.sheet, asked.ids.device
    pictures = features[asked.images].flatten(1, 2)
    places = (sheet.prefix == sheet.image_token).nonzero().flatten().to(device)
    hidden = decoder.embed_tokens(asked.ids).index_copy(1, places, pictures)
    state = State(hidden, decoder.rotary_emb(hidden, asked.positions), [], [], [])
    return run_layers(decoder.layers[:stop], asked, state)


def upper(model: Any, asked: Questions, state: State, start: int, layers: Any = None, norm: Any = None) -> Trace:
    """The layers from `start` on (or others in their place), the last norm and the head."""
    decoder = model.model.language_model
    done = run_layers(decoder.layers[start:] if layers is None else layers, asked, state)
    last = torch.stack([_take(done.hidden, asked.rows + k) for k in range(asked.sheet.answers.shape[1])], 2)
    logits = model.lm_head((norm or decoder.norm)(last))
    return Trace(logits, torch.stack(done.attention, 2), done.row_states, done.end_states)


def run_layers(layers: Any, asked: Questions, state: State, span: Tensor | None = None, maps: int | None = None) -> State:
    """Some decoder layers.

    Args:
        layers: of the decoder, or others in their place.
        asked: the questions.
        state: before the first of the layers.
        span: [prefix, k]; over its columns the last tokens' attention is summed; None: over the pictures.
        maps: a layer of which the visual tokens' attention is kept.
    """
    sheet, hidden = asked.sheet, state.hidden
    ends = (sheet.prefix == sheet.vision_end).nonzero().flatten().to(hidden.device)
    row_states, end_states = list(state.row_states), list(state.end_states)
    _now.rows, _now.opened, _now.kept = asked.rows, asked.opened, list(state.attention)
    _now.span = (sheet.image_span if span is None else span).to(hidden.device)
    _now.pictures, _now.maps, _now.map = (sheet.prefix == sheet.image_token).nonzero().flatten(), maps, None
    for layer in layers:
        hidden = layer(hidden, attention_mask=asked.mask, position_embeddings=state.turn)
        row_states.append(_take(hidden, asked.rows))
        end_states.append(hidden[:, ends])
    kept, _now.kept, _now.rows, _now.opened = _now.kept, [], None, None
    return State(hidden, state.turn, row_states, end_states, kept, _now.map)


def _take(states: Tensor, rows: Tensor) -> Tensor:
    return states.gather(1, rows[..., None].expand(*rows.shape, states.shape[-1]))
