"""What a scene is: two things, their relation, and which scenes belong to which split."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

SceneSplit = Literal["train", "validation", "calibration", "test"]
Axis = Literal["vertical", "horizontal"]
Meaning = tuple[str, str, str, str, str, str, str]

SIZES = ("small", "large")
SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "blue", "yellow", "purple", "green", "orange", "cyan", "pink")
BACKGROUNDS = ("white", "grey", "sand", "mist", "slate")
AXES: tuple[Axis, ...] = ("vertical", "horizontal")
RELATIONS = {"vertical": ("above", "below"), "horizontal": ("left of", "right of")}

JITTER_ALONG = 6
JITTER_ACROSS = 10

_JITTER_CLASSES = 8
_BY_JITTER: dict[int, SceneSplit] = {1: "calibration", 2: "validation"}

# Every scene has at least this many scenes of its own split that differ from it in one thing.
LEAST_VARIANTS = 11


@dataclass(frozen=True)
class Thing:
    """An object: size, colour, shape."""

    size: str
    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """A picture's description; an `ImageSource` that draws itself.

    `first` stands above (vertical) or left of (horizontal) `second`. `background` and `jitter` (pixels of
    336 by which the two things are moved: first x, first y, second x, second y) are told by no caption.
    """

    first: Thing
    second: Thing
    axis: Axis
    background: str = "white"
    jitter: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def meaning(self) -> Meaning:
        """The seven attributes that a caption tells; two scenes of equal meaning match the same captions."""
        a, b = self.first, self.second
        return (a.size, a.colour, a.shape, b.size, b.colour, b.shape, self.axis)

    @property
    def split(self) -> SceneSplit:
        """Decided by colours and shapes: half of all combinations (colour, shape, colour, shape) are the training's alone.

        The sum of the four indices is even in training and odd elsewhere. So no combination that a test, calibration or
        validation scene shows is ever trained on, while any three of the four attributes occur together on both sides. The
        other three splits are told apart by the jitter: they share no picture, but share combinations.
        """
        things = (self.first, self.second)
        if sum(COLOURS.index(t.colour) + SHAPES.index(t.shape) for t in things) % 2 == 0:
            return "train"
        return _BY_JITTER.get(sum(self.jitter) % _JITTER_CLASSES, "test")

    @cached_property
    def digest(self) -> str:
        """SHA-256 hex digest, 32 characters, of the description (not of pixels, which differ between versions of Pillow)."""
        content = ["scene-1", *self.meaning, self.background, list(self.jitter)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    def load(self) -> Image:
        from lad_eval.tasks.sources.scenes_draw import draw

        return draw(self).copy()

    def caption(self, *, from_second: bool = False) -> str:
        """E.g. "a large red circle above a small blue square"; `from_second` tells the same the other way round."""
        forward, backward = RELATIONS[self.axis]
        if from_second:
            return f"a {self.second} {backward} a {self.first}"
        return f"a {self.first} {forward} a {self.second}"

    def differences(self, other: Scene) -> int:
        """Least number of changes from one scene to the other: attributes of the two things, and the relation (one change)."""
        mine, theirs = self.meaning, other.meaning
        direct = sum(a != b for a, b in zip(mine, theirs, strict=True))
        exchanged = 1 + sum(a != b for a, b in zip(mine[3:6] + mine[:3], theirs[:6], strict=True))
        return min(direct, exchanged)

    def variants(self) -> tuple[Scene, ...]:
        """Scenes of the same split that differ in one thing: an attribute of one object, or the relation.

        Background and jitter stay. The order is fixed; at least LEAST_VARIANTS come back.
        """
        return tuple(s for s in self._changed() if s.split == self.split and s.first != s.second)

    def _changed(self) -> Iterator[Scene]:
        for place in ("first", "second"):
            thing: Thing = getattr(self, place)
            for attribute, values in (("size", SIZES), ("colour", COLOURS), ("shape", SHAPES)):
                for value in values:
                    if value != getattr(thing, attribute):
                        changed: Any = {place: replace(thing, **{attribute: value})}
                        yield replace(self, **changed)
        other: Axis = "horizontal" if self.axis == "vertical" else "vertical"
        yield replace(self, first=self.second, second=self.first)
        yield replace(self, axis=other)
        yield replace(self, axis=other, first=self.second, second=self.first)


def draw_scene(split: SceneSplit, generator: random.Random) -> Scene:
    """A scene of a split, uniformly over its pairs of things, with random background and jitter."""
    while True:
        first, second = (Thing(generator.choice(SIZES), generator.choice(COLOURS), generator.choice(SHAPES)) for _ in range(2))
        scene = Scene(first, second, generator.choice(AXES), generator.choice(BACKGROUNDS), _jitter(generator))
        if first != second and scene.split == split:
            return scene


def _jitter(generator: random.Random) -> tuple[int, int, int, int]:
    a, b, c, d = (generator.randint(-JITTER_ACROSS, JITTER_ACROSS) for _ in range(4))
    return (a, b, c, d)
