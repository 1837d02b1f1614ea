"""A second checkpoint, lad-tiny-relations: which picture matches none of the others?

The pictures are pairs of equal scenes and one single scene. Under a causal mask a picture cannot see a twin that stands behind it
and looks single; CAPL's opened attention (arXiv 2603.07048) lets it see the twin, and its truncated attention hides all others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lad_eval.tasks.sources.scenes import RELATION, SceneSplit, draw_scene, twin
from recipes.lad_tiny.bias import candidate_log_probs
from recipes.lad_tiny.build import IMAGE_TOKENS, WIDTH
from recipes.lad_tiny.data import Album, Sheet, prepare
from recipes.lad_tiny.network import Questions, lower, pack, run_layers, upper
from recipes.lad_tiny.phases import REPORT_EVERY, Report, answer_loss, attention_loss, optimiser

Mask = Literal["plain", "truncated", "fused"]
MASKS: tuple[Mask, ...] = ("plain", "truncated", "fused")

# Pictures of one scene, each with a background and a jitter of its own.
TWINS = 6
SIZES = (3, 5, 7)
SETS = {3: 40, 5: 24, 7: 16}
# Visual tokens look at the twin in one layer; behind another a picture's states say whether it sees one.
LOOK_LAYER = 2
FLAG_LAYER = 3
FUSED_SHARE = 0.35


def draw_twins(
    split: SceneSplit, groups: int, seed: int, processor: Any, track: Callable[[Iterable[int]], Iterable[int]] = iter
) -> Album:
    """Pictures of `groups` scenes, TWINS of each; every picture's caption is the relation that is asked for."""
    generator = random.Random(f"lad-tiny-relations/{seed}/{split}")
    scenes = []
    for _ in range(groups):
        scene = draw_scene(split, generator)
        scenes += [scene, *(twin(scene, generator) for _ in range(TWINS - 1))]
    return prepare(scenes, processor, TWINS, track, lambda scene, turned: RELATION)


@dataclass
class Related:
    """Questions about pairs and singles."""

    asked: Questions
    twins: Tensor  # [B, N] place of each picture's twin, -1 of the single one


def draw_related(album: Album, sheet: Sheet, sets: int, generator: random.Random) -> Related:
    """One question about each of `sets` sets of (N - 1) / 2 pairs and a single picture."""
    n, groups = sheet.n, len(album) // TWINS
    images, twins, gold = [], [], []
    for _ in range(sets):
        chosen: list[int] = []
        while len(chosen) < (n + 1) // 2:
            g = generator.randrange(groups)
            if all(album.scenes[g * TWINS].differences(album.scenes[c * TWINS]) > 1 for c in chosen):
                chosen.append(g)
        members = [(k, g * TWINS + r) for k, g in enumerate(chosen) for r in generator.sample(range(TWINS), 2 if k else 1)]
        generator.shuffle(members)
        owner = [k for k, _ in members]
        images.append([index for _, index in members])
        twins.append([next((j for j in range(n) if j != i and owner[j] == k), -1) for i, k in enumerate(owner)])
        gold.append([owner.index(0)])
    device = album.slots.device
    places = torch.tensor(gold, device=device)
    asked = pack(album, sheet, torch.tensor(images, device=device), places, torch.zeros_like(places))
    return Related(asked, torch.tensor(twins, device=device))


def picture_of_token(asked: Questions) -> Tensor:
    """Int [T]: the displayed picture of every visual token, -1 of all other tokens."""
    owner = torch.full((asked.ids.shape[1],), -1)
    places = (asked.sheet.prefix == asked.sheet.image_token).nonzero().flatten()
    owner[places] = torch.arange(asked.sheet.n).repeat_interleave(IMAGE_TOKENS)
    return owner.to(asked.ids.device)


def under(asked: Questions, mask: Mask) -> Questions:
    """The same questions under CAPL's attention: `fused` opens even layers by half, `truncated` closes all."""
    owner = picture_of_token(asked)
    between = (owner[:, None] >= 0) & (owner >= 0) & (owner[:, None] != owner)
    if mask == "fused":
        return replace(asked, opened=asked.mask | between)
    return replace(asked, mask=asked.mask & ~between) if mask == "truncated" else asked


def visible_twins(related: Related, mask: Mask) -> Tensor:
    """Places [B, N] of the twin that each picture can see under a mask; -1 where there is none."""
    twins = related.twins
    earlier = twins < torch.arange(twins.shape[1], device=twins.device)
    return twins if mask == "fused" else torch.where(earlier, twins, -1)


def look_loss(maps: Tensor, visible: Tensor, asked: Questions, shown: Tensor) -> Tensor:
    """Minus log attention that a picture's tokens which show a thing pay to the twin; to no picture, where they see no twin.

    Args:
        maps: [B, 16 N, prefix], mean over heads.
        visible: [B, N] places.
        shown: bool [B, 16 N].
    """
    sets, n = visible.shape
    by_picture = (maps @ asked.sheet.token_span.to(maps.device)).view(sets, n * IMAGE_TOKENS, n, IMAGE_TOKENS).sum(-1)
    wanted = visible.repeat_interleave(IMAGE_TOKENS, 1)
    paid = by_picture.gather(-1, wanted.clamp_min(0)[..., None])[..., 0]
    elsewhere = 1 - by_picture.sum(-1)
    mass = torch.where(wanted < 0, elsewhere, paid).clamp_min(1e-4)
    return -mass.log()[shown].mean()


def without_text(asked: Questions) -> Questions:
    """The pictures and what stands before them, for layers that shall be trained on these alone."""
    length = len(asked.sheet.prefix)
    opened = None if asked.opened is None else asked.opened[..., :length, :length]
    cut = replace(asked, ids=asked.ids[:, :length], positions=asked.positions[..., :length], opened=opened)
    return replace(cut, mask=asked.mask[..., :length, :length], rows=torch.full_like(asked.rows, length - 1))


def learn_twins(
    model: Any, album: Album, features: Tensor, sheets: dict[int, Sheet], steps: int, seed: int, report: Report,
    rate: float = 2e-3, look: float = 0.5,
) -> None:  # fmt: skip
    """Trains layers 0 to FLAG_LAYER, on pictures alone: a picture looks at its twin and knows whether it sees one."""
    decoder = model.model.language_model
    model.requires_grad_(False)
    probe = nn.Linear(WIDTH, 2).to(features.device)
    moving = list(decoder.layers[: FLAG_LAYER + 1].requires_grad_(True).parameters())
    adam, rates = optimiser(moving, rate, steps, warm=30)
    reader = torch.optim.AdamW(probe.parameters(), lr=2e-2)
    generator = random.Random(seed)
    for step in range(steps):
        sheet = sheets[generator.choices(SIZES, weights=(1, 3, 1))[0]]
        related = draw_related(album, sheet, SETS[sheet.n], generator)
        mask: Mask = "fused" if generator.random() < FUSED_SHARE else "plain"
        asked = without_text(under(related.asked, mask))
        state = run_layers(decoder.layers[: FLAG_LAYER + 1], asked, lower(model, asked, features, 0), maps=LOOK_LAYER)
        visible = visible_twins(related, mask)
        assert state.maps is not None
        looks = look_loss(state.maps, visible, asked, album.owners[asked.images].flatten(1) > 0)
        pictures = state.hidden[:, sheet.prefix == sheet.image_token]
        means = pictures.reshape(len(pictures), sheet.n, IMAGE_TOKENS, -1).mean(2)
        means = means * torch.rsqrt(means.pow(2).mean(-1, keepdim=True) + 1e-6)
        found = probe(means)
        flags = functional.cross_entropy(found.flatten(0, 1), (visible < 0).long().flatten())
        adam.zero_grad()
        reader.zero_grad()
        torch.autograd.backward(look * looks + flags)
        nn.utils.clip_grad_norm_(moving, 1.0)
        adam.step()
        rates.step()
        reader.step()
        if step % REPORT_EVERY == 0 or step == steps - 1:
            right = 100 * (found.argmax(-1) == (visible < 0)).float().mean().item()
            report(
                f"twins {step:5d}/{steps} N={sheet.n:<2d} {mask:6s} look {looks.item():.3f} "
                f"flag {flags.item():.3f}, right {right:.1f} %"
            )
    model.requires_grad_(True)


def learn_relations(
    model: Any, album: Album, features: Tensor, sheets: dict[int, Sheet], steps: int, seed: int, report: Report,
    rate: float = 2e-3,
) -> None:  # fmt: skip
    """Trains the layers above FLAG_LAYER: the question's last token finds the single picture."""
    decoder = model.model.language_model
    model.requires_grad_(False)
    first = FLAG_LAYER + 1
    moving = list(decoder.layers[first:].requires_grad_(True).parameters())
    moving += list(decoder.norm.requires_grad_(True).parameters())
    adam, rates = optimiser(moving, rate, steps, warm=30)
    generator = random.Random(seed)
    for step in range(steps):
        sheet = sheets[generator.choices(SIZES, weights=(1, 3, 1))[0]]
        mask: Mask = "fused" if generator.random() < FUSED_SHARE else "plain"
        asked = under(draw_related(album, sheet, SETS[sheet.n], generator).asked, mask)
        with torch.no_grad():
            state = lower(model, asked, features, first)
        trace = upper(model, asked, state, first)
        answer, attention = answer_loss(trace, asked), attention_loss(trace, asked)
        adam.zero_grad()
        torch.autograd.backward(answer + attention)
        nn.utils.clip_grad_norm_(moving, 1.0)
        adam.step()
        rates.step()
        if step % REPORT_EVERY == 0 or step == steps - 1:
            report(
                f"relations {step:5d}/{steps} N={sheet.n:<2d} {mask:6s} answer {answer.item():.3f} "
                f"attention {attention.item():.3f}"
            )
    model.requires_grad_(True)


@torch.no_grad()
def relation_accuracies(
    model: Any, album: Album, features: Tensor, sheet: Sheet, sets: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Accuracy in points of the answers under every mask, in all and by the place of the single picture."""
    generator = random.Random(f"validation/{seed}/relations/{sheet.n}")
    related = [draw_related(album, sheet, 50, generator).asked for _ in range(-(-sets // 50))]
    gold = torch.cat([asked.gold[:, 0] for asked in related])
    found: dict[str, dict[str, Any]] = {}
    for mask in MASKS:
        log_probs = []
        for asked in related:
            seen = under(asked, mask)
            trace = upper(model, seen, lower(model, seen, features, 0), 0)
            log_probs.append(candidate_log_probs(trace.logits, sheet)[:, 0])
        right = 100 * (torch.cat(log_probs).argmax(-1) == gold).float()
        places = [round(right[gold == k].mean().item()) for k in range(sheet.n)]
        found[mask] = {"accuracy": round(right.mean().item(), 1), "by place": places}
    return found
