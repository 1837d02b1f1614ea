"""The first two phases: the vision tower learns to name, the decoder learns to retrieve."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lad_eval.tasks.sources.scenes import Setting
from recipes.lad_tiny.build import LAYERS, WIDTH
from recipes.lad_tiny.data import SLOT_SIZES, Album, Sheet
from recipes.lad_tiny.network import Questions, Trace, encode_images, forward, pack

# The decoder reads (0 to 3), then compares (4 to 7). LAD's upper layers of an 8-layer model are 5, 6 and 7.
COMPARING = range(LAYERS // 2, LAYERS)
READ_PICTURE = 1
READ_CAPTION = 2
MOST_PLACES = 12
# A little room is left for the caption: one of four heads.
EARLY_MASS = 0.7


class Probes(nn.Module):
    """Linear readers of hidden states, thrown away after training.

    `slots` reads the seven attributes both from a picture's end token and from the question's last token, so that
    the two are written in one code; `place` reads a picture's displayed position.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slots = nn.Linear(WIDTH, sum(SLOT_SIZES))
        self.place = nn.Linear(WIDTH, MOST_PLACES)

    def slot_loss(self, states: Tensor, slots: Tensor) -> Tensor:
        """Mean cross-entropy over the seven attributes; states [..., width], slots [..., 7]."""
        states = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + 1e-6)
        parts = self.slots(states).split(SLOT_SIZES, -1)
        losses = [functional.cross_entropy(part.flatten(0, -2), slots[..., k].flatten()) for k, part in enumerate(parts)]
        return torch.stack(losses).mean()

    def place_loss(self, states: Tensor) -> Tensor:
        """Cross-entropy of the displayed position; states [B, N, width]."""
        states = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + 1e-6)
        target = torch.arange(states.shape[1], device=states.device).expand(states.shape[:2])
        return functional.cross_entropy(self.place(states).flatten(0, 1), target.flatten())


def answer_loss(trace: Trace, asked: Questions) -> Tensor:
    """Cross-entropy of the answer's tokens and the end of the turn."""
    target = asked.sheet.answers.to(asked.gold.device)[asked.gold]
    return functional.cross_entropy(trace.logits.flatten(0, 2), target.flatten())


def attention_loss(trace: Trace, asked: Questions) -> Tensor:
    """Minus log share of the right picture in the attention to all pictures, mean over the comparing layers."""
    rows = trace.attention[:, :, COMPARING.start :]
    share = (rows / rows.sum(-1, keepdim=True)).clamp_min(1e-6).log()
    return -share.gather(-1, asked.gold[:, :, None, None].expand(*share.shape[:3], 1)).mean()


def early_loss(trace: Trace) -> Tensor:
    """Reading layers look at all pictures, much and evenly: strong layers that tell nothing."""
    rows = trace.attention[:, :, : COMPARING.start]
    mass = rows.sum(-1)
    evenness = -(rows / mass[..., None]).clamp_min(1e-6).log().mean(-1) - torch.log(torch.tensor(float(rows.shape[-1])))
    return (EARLY_MASS - mass).clamp_min(0).pow(2).mean() + 0.1 * evenness.mean()


Report = Callable[[str], None]
SIZES = (2, 4, 8, 12)
# Sets of pictures in a step, so that every N costs about the same.
SETS = {2: 20, 4: 12, 8: 6, 12: 4}
ADVERSARIAL_SHARE = 0.5
REPORT_EVERY = 50


def schedule(step: int, steps: int, warm: int = 100) -> float:
    """Share of the highest learning rate: linear rise, cosine fall to 2 %."""
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def optimiser(parameters: Iterable[Tensor], rate: float, steps: int, decay: float = 0.01, warm: int = 100) -> tuple[Any, Any]:
    """AdamW and its schedule."""
    adam = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=decay)
    return adam, torch.optim.lr_scheduler.LambdaLR(adam, lambda step: schedule(step, steps, warm))


def warm_up(model: Any, album: Album, steps: int, seed: int, report: Report, batch: int = 64, rate: float = 2e-3) -> None:
    """Vision tower: a token names the thing that it shows, and the mean of a picture's tokens names everything."""
    visual = model.model.visual
    generator = torch.Generator().manual_seed(seed)
    device = album.slots.device
    reader = nn.Linear(WIDTH, sum(SLOT_SIZES)).to(device)
    owner_reader = nn.Linear(WIDTH, 3).to(device)
    parameters = [*visual.parameters(), *reader.parameters(), *owner_reader.parameters()]
    adam, rates = optimiser(parameters, rate, steps)
    for step in range(steps):
        chosen = torch.randint(len(album), (batch,), generator=generator).to(device)
        tokens, slots, owners = encode_images(visual, album.patches[chosen]), album.slots[chosen], album.owners[chosen]
        parts = reader(tokens.mean(1)).split(SLOT_SIZES, -1)
        whole = torch.stack([functional.cross_entropy(part, slots[:, k]) for k, part in enumerate(parts)]).mean()
        local = functional.cross_entropy(owner_reader(tokens).flatten(0, 1), owners.flatten())
        for k, part in enumerate(reader(tokens).split(SLOT_SIZES, -1)):
            # Slots 0 to 2 tell of the first thing, 3 to 5 of the second, 6 of both.
            shown = owners == 1 + k // 3 if k < 6 else owners > 0
            told = functional.cross_entropy(part[shown], slots[:, k, None].expand_as(owners)[shown])
            # Shapes of few pixels are the slow part.
            local = local + (3 if k in (2, 5) else 1) * told / len(SLOT_SIZES)
        adam.zero_grad()
        torch.autograd.backward(whole + local)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        rates.step()
        if step % REPORT_EVERY == 0 or step == steps - 1:
            right = torch.stack([part.argmax(-1) == slots[:, k] for k, part in enumerate(parts)], -1).float()
            report(
                f"vision {step:5d}/{steps} whole {whole.item():.3f} parts {local.item():.3f} "
                f"attributes {[round(100 * x) for x in right.mean(0).tolist()]} all seven {100 * right.prod(-1).mean():.1f}"
            )


@torch.no_grad()
def picture_features(model: Any, album: Album, batch: int = 200) -> Tensor:
    """Tokens [n, 16, width] of every picture, after the vision tower is frozen."""
    model.model.visual.requires_grad_(False)
    starts = range(0, len(album), batch)
    return torch.cat([encode_images(model.model.visual, album.patches[start : start + batch]) for start in starts])


def draw_questions(album: Album, sheet: Sheet, sets: int, setting: Setting, generator: random.Random) -> Questions:
    """All N questions about each of `sets` sets of pictures."""
    n, device = sheet.n, album.slots.device
    images = torch.tensor([album.candidates(setting, n, generator) for _ in range(sets)], device=device)
    gold = torch.arange(n, device=device).expand(sets, n)
    turned = torch.tensor([[generator.randrange(2) for _ in range(n)] for _ in range(sets)], device=device)
    return pack(album, sheet, images, gold, turned)


def learn(
    model: Any,
    album: Album,
    features: Tensor,
    sheets: dict[int, Sheet],
    steps: int,
    seed: int,
    report: Report,
    rate: float = 2e-3,
) -> None:
    """Decoder from scratch: answer, attention, attributes and displayed places."""
    device = features.device
    probes = Probes().to(device)
    decoder = model.model.language_model
    parameters = [p for p in (*decoder.parameters(), *probes.parameters()) if p.requires_grad]
    adam, rates = optimiser(parameters, rate, steps)
    generator = random.Random(seed)
    for step in range(steps):
        setting: Setting = "adversarial" if generator.random() < ADVERSARIAL_SHARE else "random"
        # Small sets first: they are cheap, and the comparison is the same.
        sizes = SIZES if step > steps // 8 else SIZES[:2]
        sheet = sheets[generator.choices(sizes, weights=(1, 3, 3, 2)[: len(sizes)])[0]]
        asked = draw_questions(album, sheet, SETS[sheet.n], setting, generator)
        trace = forward(model, asked, features)
        answer, attention = answer_loss(trace, asked), attention_loss(trace, asked)
        pictures = probes.slot_loss(trace.end_states[READ_PICTURE], album.slots[asked.images])
        caption = probes.slot_loss(trace.row_states[READ_CAPTION], album.slots[asked.images.gather(1, asked.gold)])
        place = probes.place_loss(trace.end_states[READ_CAPTION])
        loss = answer + attention + pictures + caption + 0.3 * place + early_loss(trace)
        adam.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        adam.step()
        rates.step()
        if step % REPORT_EVERY == 0 or step == steps - 1:
            report(
                f"retrieval {step:5d}/{steps} N={sheet.n:<2d} {setting:11s} answer {answer.item():.3f} "
                f"attention {attention.item():.3f} pictures {pictures.item():.3f} "
                f"caption {caption.item():.3f} place {place.item():.3f}"
            )
