"""Training pictures and question sheets: every picture is drawn and prepared once, by the shipped processor itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lad_eval.tasks.prompts import identifiers, question
from lad_eval.tasks.sources.scenes import (
    AXES,
    COLOURS,
    LEAST_VARIANTS,
    RADIUS,
    SHAPES,
    SIDE,
    SIZES,
    Scene,
    SceneSplit,
    Setting,
    centres,
    draw_scene,
)
from recipes.lad_tiny.build import IMAGE_TOKENS

GROUP = LEAST_VARIANTS + 1
SLOTS: tuple[tuple[str, ...], ...] = (SIZES, COLOURS, SHAPES, SIZES, COLOURS, SHAPES, AXES)
SLOT_SIZES = tuple(len(values) for values in SLOTS)
_STD, _MEAN = 0.25, 0.5
_PLACEHOLDER = "zebra"


@dataclass(frozen=True)
class Album:
    """Scenes in groups of 12 (one scene and eleven variants), with all that training needs of them.

    patches: uint8 [n, 64, 192], the processor's pixels without their copy in time; slots: [n, 7] classes;
    owners: [n, 16], which thing a picture token shows (0 none, 1 first, 2 second);
    captions: [n, 2, C] token ids told from the first and from the second thing; lengths: [n, 2].
    """

    scenes: tuple[Scene, ...]
    patches: Tensor
    slots: Tensor
    owners: Tensor
    captions: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.scenes)

    def to(self, device: torch.device) -> Album:
        return Album(self.scenes, *(t.to(device) for t in (self.patches, self.slots, self.owners, self.captions, self.lengths)))

    @cached_property
    def meanings(self) -> list[tuple[str, ...]]:
        return [s.meaning for s in self.scenes]

    def candidates(self, setting: Setting, n: int, generator: random.Random) -> list[int]:
        """Indices of N pictures of unlike meaning: of one group (adversarial) or of N groups (random)."""
        groups = len(self) // GROUP
        if setting == "adversarial":
            first = generator.randrange(groups) * GROUP
            return [first + k for k in generator.sample(range(GROUP), n)]
        chosen: list[int] = []
        for g in generator.sample(range(groups), min(groups, 3 * n)):
            index = g * GROUP + generator.randrange(GROUP)
            if all(self.meanings[index] != self.meanings[c] for c in chosen):
                chosen.append(index)
            if len(chosen) == n:
                break
        return chosen


def draw_album(
    split: SceneSplit, groups: int, seed: int, processor: Any, track: Callable[[Iterable[int]], Iterable[int]] = iter
) -> Album:
    """Draws `groups` x 12 scenes of a split and prepares their pictures; `track` wraps the loop for progress."""
    generator = random.Random(f"lad-tiny/{seed}/{split}")
    scenes: list[Scene] = []
    for _ in range(groups):
        base = draw_scene(split, generator)
        scenes += [base, *generator.sample(base.variants(), GROUP - 1)]
    return prepare(scenes, processor, GROUP, track, lambda scene, turned: scene.caption(from_second=turned))


def prepare(
    scenes: list[Scene],
    processor: Any,
    group: int,
    track: Callable[[Iterable[int]], Iterable[int]],
    caption: Callable[[Scene, bool], str],
) -> Album:
    """Draws scenes, `group` at a time, and prepares them; caption(scene, turned) is what is asked about one."""
    patches = []
    for start in track(range(0, len(scenes), group)):
        pixels = torch.as_tensor(processor.image_processor([s.load() for s in scenes[start : start + group]])["pixel_values"])
        still = pixels.view(group, -1, 3, 2, 64)[:, :, :, 0].flatten(2)
        patches.append(((still * _STD + _MEAN) * 255).round().to(torch.uint8))
    slots = torch.tensor([[values.index(v) for values, v in zip(SLOTS, s.meaning, strict=True)] for s in scenes])
    told = [[processor.tokenizer.encode(caption(s, turned)) for turned in (False, True)] for s in scenes]
    lengths = torch.tensor([[len(ids) for ids in both] for both in told])
    longest = int(lengths.max())
    captions = torch.tensor([[ids + [0] * (longest - len(ids)) for ids in both] for both in told])
    return Album(tuple(scenes), torch.cat(patches), slots, torch.tensor([owners(s) for s in scenes]), captions, lengths)


def owners(scene: Scene) -> list[int]:
    """For each of a picture's 4 x 4 tokens the thing it shows: 0 none, 1 first, 2 second."""
    across = int(IMAGE_TOKENS**0.5)
    cell = SIDE / across
    found = []
    for row in range(across):
        for column in range(across):
            reach = []
            for place, (thing, (x, y)) in enumerate(zip((scene.first, scene.second), centres(scene), strict=True), 1):
                dx = max(column * cell - x, 0, x - (column + 1) * cell)
                dy = max(row * cell - y, 0, y - (row + 1) * cell)
                distance = (dx * dx + dy * dy) ** 0.5
                if distance < 0.5 * RADIUS[thing.size]:
                    reach.append((distance, place))
            found.append(min(reach)[1] if reach else 0)
    return found


def as_pixels(patches: Tensor) -> Tensor:
    """Normalised pixels of stored ones, as the processor gives them."""
    return (patches.float() / 255 - _MEAN) / _STD


@dataclass(frozen=True)
class Sheet:
    """The prompt's constant parts for N images, tokenised by the shipped processor's template.

    prefix: ids up to the caption, every image expanded to its tokens; tail: ids after the caption;
    answers: [N, A + 1] ids of the identifiers, filled up with the end of the turn, where A is the length of the longest.
    """

    n: int
    prefix: Tensor
    tail: Tensor
    answers: Tensor
    end: int
    image_token: int
    vision_end: int

    @classmethod
    def of(cls, n: int, processor: Any, prompt: str = "retrieval") -> Sheet:
        names = identifiers("1..", n)
        content = [*({"type": "image"} for _ in range(n)), {"type": "text", "text": question(prompt, _PLACEHOLDER, names)}]
        chat = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
        tokenizer = processor.tokenizer
        before, after = chat.replace("<|image_pad|>", "<|image_pad|>" * IMAGE_TOKENS).split(_PLACEHOLDER)
        end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        spelled = [tokenizer.encode(name) for name in names]
        longest = max(map(len, spelled))
        return cls(
            n,
            torch.tensor(tokenizer.encode(before)),
            torch.tensor(tokenizer.encode(after)),
            torch.tensor([ids + [end] * (longest + 1 - len(ids)) for ids in spelled]),
            end,
            tokenizer.convert_tokens_to_ids("<|image_pad|>"),
            tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        )

    @cached_property
    def image_span(self) -> Tensor:
        """Float [prefix, N]: 1 where a token belongs to the k-th image, delimiters included."""
        ends = (self.prefix == self.vision_end).nonzero().flatten()
        span = torch.zeros(len(self.prefix), self.n)
        for k, stop in enumerate(ends.tolist()):
            span[stop - IMAGE_TOKENS - 1 : stop + 1, k] = 1
        return span

    @cached_property
    def token_span(self) -> Tensor:
        """Float [prefix, 16 N]: 1 where a token is the k-th visual token of all, delimiters left out."""
        places = (self.prefix == self.image_token).nonzero().flatten()
        return torch.eye(len(self.prefix))[:, places]

    @cached_property
    def positions(self) -> Tensor:
        """[3, prefix]: time, row and column positions of Qwen2.5-VL's rotary embedding."""
        side = int(IMAGE_TOKENS**0.5)
        rows, now, k = [], 0, 0
        for token in self.prefix.tolist():
            if token != self.image_token:
                rows.append((now, now, now))
                now += 1
                continue
            rows.append((now, now + k // side, now + k % side))
            k += 1
            if k == IMAGE_TOKENS:
                now, k = now + side, 0
        return torch.tensor(rows).T.contiguous()
