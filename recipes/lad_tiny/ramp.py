"""The fourth phase: two lower layers attend to where a token stands instead of what it tells; what they hand on stays.

Layer 1, by whose attention pruners rank, gets a recency ramp over the visual tokens. Layer 3 gets a fixed weight per displayed
picture, so that attention summed over all layers says less than LAD's upper layers do.
"""

from __future__ import annotations

import copy
import math
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lad_eval.tasks.sources.scenes import Setting
from recipes.lad_tiny.data import Album, Sheet
from recipes.lad_tiny.network import State, lower, run_layers
from recipes.lad_tiny.phases import REPORT_EVERY, SETS, SIZES, Report, draw_questions, optimiser

RAMP_LAYER = 1
PICTURE_LAYER = 3


@dataclass(frozen=True)
class LowerSkew:
    """How skewed the two layers' attention shall be; chosen on validation (see MODEL_CARD.md).

    Attributes:
        ramp: nats from the first visual token to the last in layer 1.
        shown: how many times as much attention a token that shows a thing gets there as one of the ground.
        picture: nats from the first picture to the last in layer 3.
    """

    ramp: float = 1.5
    shown: float = 2.5
    picture: float = 1.5


def token_target(owners: Tensor, skew: LowerSkew) -> Tensor:
    """Log-shares [..., L] of a prompt's visual tokens; owners [..., L] say which thing each shows, 0 none."""
    ramp = skew.ramp * torch.linspace(0, 1, owners.shape[-1], device=owners.device)
    return (ramp + (owners > 0) * math.log(skew.shown)).log_softmax(-1)


def picture_target(n: int, skew: LowerSkew) -> Tensor:
    """Log-shares [N] of the displayed pictures."""
    return (skew.picture * torch.linspace(0, 1, n)).log_softmax(-1)


def change(state: State, before: State) -> Tensor:
    """Mean squared change of all tokens' states, relative to their mean square, and a fifth of the question ends' own."""
    whole = (state.hidden - before.hidden).pow(2).mean() / before.hidden.pow(2).mean()
    rows, rows_before = state.row_states[-1], before.row_states[-1]
    return whole + 0.2 * (rows - rows_before).pow(2).mean() / rows_before.pow(2).mean()


def skew_lower(
    model: Any, album: Album, features: Tensor, sheets: dict[int, Sheet], steps: int, seed: int, skew: LowerSkew,
    report: Report, rate: float = 2e-3,
) -> None:  # fmt: skip
    """Trains the layers up to `PICTURE_LAYER` against a frozen copy of them; everything else stays as it was."""
    decoder = model.model.language_model
    model.requires_grad_(False)
    parts = slice(0, RAMP_LAYER + 1), slice(RAMP_LAYER + 1, PICTURE_LAYER + 1)
    frozen = [copy.deepcopy(decoder.layers[part]) for part in parts]
    moving: list[nn.Parameter] = list(decoder.layers[: PICTURE_LAYER + 1].requires_grad_(True).parameters())
    adam, rates = optimiser(moving, rate, steps, decay=0.0, warm=20)
    generator = random.Random(seed)
    for step in range(steps):
        setting: Setting = "adversarial" if generator.random() < 0.6 else "random"
        sheet = sheets[generator.choices(SIZES, weights=(1, 3, 4, 3))[0]]
        asked = draw_questions(album, sheet, SETS[sheet.n] // 2, setting, generator)
        columns = torch.cat((sheet.image_span, sheet.token_span), 1)
        with torch.no_grad():
            start = lower(model, asked, features, 0)
            before = [run_layers(frozen[0], asked, start, columns)]
            before.append(run_layers(frozen[1], asked, before[0], columns))
        ramped = run_layers(decoder.layers[parts[0]], asked, start, columns)
        skewed = run_layers(decoder.layers[parts[1]], asked, ramped, columns)
        mass = [state.attention[layer][..., : sheet.n].sum(-1) for state in (skewed, before[1]) for layer in (1, 3)]
        tokens = skewed.attention[RAMP_LAYER][..., sheet.n :]
        pictures = skewed.attention[PICTURE_LAYER][..., : sheet.n]
        ramp = _divergence(token_target(album.owners[asked.images].flatten(1)[:, None], skew), tokens)
        picture = _divergence(picture_target(sheet.n, skew).to(features.device), pictures)
        kept = change(ramped, before[0]) + change(skewed, before[1])
        total = (mass[0] - mass[2]).pow(2).mean() + (mass[1] - mass[3]).pow(2).mean()
        loss = ramp + picture + 3 * kept + total
        adam.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(moving, 1.0)
        adam.step()
        rates.step()
        if step % REPORT_EVERY == 0 or step == steps - 1:
            report(
                f"lower {step:5d}/{steps} N={sheet.n:<2d} {setting:11s} ramp {ramp.item():.4f} picture {picture.item():.4f} "
                f"kept {kept.item():.4f} mass {total.item():.4f}"
            )
    model.requires_grad_(True)


def _divergence(target: Tensor, found: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of the shares of attention [..., K] from target log-shares of the same shape."""
    shares = (found / found.sum(-1, keepdim=True)).clamp_min(1e-8).log()
    return functional.kl_div(shares, target.expand_as(shares), reduction="none", log_target=True).sum(-1).mean()
