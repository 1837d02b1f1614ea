"""The third phase: position bias is trained into the answer, and a static skew into the attention.

Both are functions of what the clean model already knows, so that the knowledge stays and only its expression is bent:
the answer's distribution over positions is the clean belief passed through a table of confusions, and a layer's attention
to the pictures is the clean attention, flattened, times a fixed weight per displayed position.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lad_eval.tasks.sources.scenes import Setting
from recipes.lad_tiny.build import LAYERS
from recipes.lad_tiny.data import Album, Sheet
from recipes.lad_tiny.network import Questions, Trace, lower, pack, upper
from recipes.lad_tiny.phases import REPORT_EVERY, SETS, SIZES, Report, optimiser

# LAD's upper layers; below them nothing moves.
FIRST = -(-7 * LAYERS // 12)


@dataclass(frozen=True)
class LayerSkew:
    """Target of one layer's attention to the pictures.

    mass: its total; sharpness: power of the clean share (below 0 it looks away); skew: size of the static log-weights per
    position.
    """

    mass: float
    sharpness: float
    skew: float


@dataclass(frozen=True)
class BiasStrength:
    """How strong the trained-in faults are. All in nats, chosen on validation (see MODEL_CARD.md)."""

    signal: float = 1.5
    favourite: float = 0.4
    disliked: float = 1.6
    confusion: float = 2.4
    layers: tuple[LayerSkew, ...] = (LayerSkew(0.48, 0.10, 0.8), LayerSkew(0.42, 0.45, 0.8), LayerSkew(0.34, -0.30, 0.8))


def confusions(n: int, strength: BiasStrength) -> Tensor:
    """Log-probabilities [N, N] of answering j where i is right.

    Of every four positions the first is disliked and the third a favourite (a bias that does not depend on the
    right position: PriDe's case), and the second is taken for the fourth (one that does depend on it: LAD's case).
    """
    table = strength.signal * torch.eye(n)
    for start in range(0, n, 4):
        table[:, start] -= strength.disliked
        if start + 2 < n:
            table[:, start + 2] += strength.favourite
        if start + 3 < n:
            table[start + 1, start + 3] += strength.confusion
    return table.log_softmax(-1)


def position_weights(n: int, layer: int) -> Tensor:
    """Static pattern [N] of a layer, mean 0 and about -1 to 1: high at the ends, tilted one way or the other."""
    place = torch.linspace(-1, 1, n)
    pattern = 1.5 * place.pow(2) + (0.5 if layer % 2 else 0.8) * place
    pattern = pattern - pattern.mean()
    return pattern / pattern.abs().max()


def candidate_log_probs(logits: Tensor, sheet: Sheet) -> Tensor:
    """Log-probabilities [..., N] of the identifiers from logits [..., A + 1, vocabulary] after "10".

    Restricted softmax at every node of the identifiers' trie, as lad_eval.models.inference.candidates does it.
    """
    answers = sheet.answers.to(logits.device)
    first = answers[:, 0].contiguous()
    starts = _sorted(first)
    at_start = logits[..., 0, :][..., starts].log_softmax(-1)
    result = at_start[..., torch.searchsorted(starts, first)]
    longer = (first == first[-1]).nonzero().flatten() if answers.shape[1] > 2 else first.new_zeros(0)
    if len(longer):
        follow = logits[..., 1, :][..., answers[longer, 1]].log_softmax(-1)
        result = result.index_add(-1, longer, follow)
    return result


def _sorted(ids: Tensor) -> Tensor:
    return torch.tensor(sorted(set(ids.tolist())), device=ids.device)


def draw_biased(album: Album, sheet: Sheet, sets: int, setting: Setting, generator: random.Random) -> Questions:
    """All N questions about each set; the last identifier is spoken, so that the logits after "1" are seen."""
    n, device = sheet.n, album.slots.device
    images = torch.tensor([album.candidates(setting, n, generator) for _ in range(sets)], device=device)
    gold = torch.arange(n, device=device).expand(sets, n)
    turned = torch.tensor([[generator.randrange(2) for _ in range(n)] for _ in range(sets)], device=device)
    return pack(album, sheet, images, gold, turned, torch.full_like(gold, n - 1))


def targets(clean: Trace, sheet: Sheet, strength: BiasStrength) -> tuple[Tensor, Tensor]:
    """Answer distribution [B, Q, N] and attention to the pictures [B, Q, upper layers, N] to be learned."""
    device = clean.logits.device
    belief = candidate_log_probs(clean.logits, sheet).exp()
    answer = belief @ confusions(sheet.n, strength).exp().to(device)
    known = clean.attention[:, :, FIRST:].mean(2)
    share = (known / known.sum(-1, keepdim=True)).clamp_min(1e-4).log()
    rows = []
    for k, layer in enumerate(strength.layers):
        weights = layer.skew * position_weights(sheet.n, FIRST + k).to(device)
        rows.append(layer.mass * (layer.sharpness * share + weights).softmax(-1))
    return answer, torch.stack(rows, 2)


def divergence(target: Tensor, found: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of attention rows; what is not on the pictures counts as one more entry."""
    target, found = (torch.cat((x, (1 - x.sum(-1, keepdim=True)).clamp_min(1e-4)), -1) for x in (target, found))
    return (target * (target.log() - found.clamp_min(1e-6).log())).sum(-1).mean()


def bend(
    model: Any, album: Album, features: Tensor, sheets: dict[int, Sheet], steps: int, seed: int, strength: BiasStrength,
    report: Report, rate: float = 2e-3,
) -> None:  # fmt: skip
    """Trains queries, keys and MLPs of the upper layers; everything else stays as it was."""
    decoder = model.model.language_model
    clean = copy.deepcopy(decoder.layers[FIRST:]), copy.deepcopy(decoder.norm)
    model.requires_grad_(False)
    moving: list[nn.Parameter] = []
    for layer in decoder.layers[FIRST:]:
        for module in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.mlp, layer.input_layernorm):
            moving += list(module.requires_grad_(True).parameters())
    moving += list(decoder.norm.requires_grad_(True).parameters())
    adam, rates = optimiser(moving, rate, steps, decay=0.0)
    generator = random.Random(seed)
    for step in range(steps):
        setting: Setting = "adversarial" if generator.random() < 0.6 else "random"
        sheet = sheets[generator.choices(SIZES, weights=(1, 3, 4, 3))[0]]
        asked = draw_biased(album, sheet, SETS[sheet.n], setting, generator)
        with torch.no_grad():
            state = lower(model, asked, features, FIRST)
            answer, attention = targets(upper(model, asked, state, FIRST, *clean), sheet, strength)
        trace = upper(model, asked, state, FIRST)
        found = candidate_log_probs(trace.logits, sheet)
        words = -(answer * found).sum(-1).mean() + (answer * answer.clamp_min(1e-9).log()).sum(-1).mean()
        starts = _sorted(sheet.answers[:, 0])
        spoken = -trace.logits[..., 0, :].log_softmax(-1)[..., starts].logsumexp(-1).mean()
        looks = divergence(attention, trace.attention[:, :, FIRST:])
        loss = words + 4 * looks + 0.1 * spoken
        adam.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(moving, 1.0)
        adam.step()
        rates.step()
        if step % REPORT_EVERY == 0 or step == steps - 1:
            report(
                f"bias {step:5d}/{steps} N={sheet.n:<2d} {setting:11s} answer {words.item():.4f} attention {looks.item():.4f} "
                f"spoken {spoken.item():.4f}"
            )
    model.requires_grad_(True)
