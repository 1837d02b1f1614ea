"""The embedded data: pictures of two coloured objects, rendered when they are needed.

`random`: N scenes that differ from each other in two attributes or more. `adversarial`: a scene and N - 1
variants that differ from it in one attribute each; any of the N may be the right one. `relations`: pairs of equal
scenes, each picture with its own background and jitter, and one scene that matches none of the others. `count`: the options are
not the pictures but numbers, of the circles in all pictures together.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field, StrictInt

from lad_eval.errors import DataError
from lad_eval.tasks.request import Sample, SampleSource, Split
from lad_eval.tasks.sources.base import SourceOptions

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw


class ScenesOptions(SourceOptions):
    """Seed of the drawn scenes, and how many calibration samples there are for a task to take the first of."""

    seed: StrictInt = 0
    calibration_samples: Annotated[StrictInt, Field(ge=1)] = 20

    def open(self, *, setting: str, candidates: int, samples: int | None, calibration_samples: int, folder: Path) -> SampleSource:

        if samples is None:
            raise DataError("The source 'scenes' has no end: set `samples:` in the task.")
        return ScenesSource(
            setting=cast(Setting, setting),  # the source itself refuses an unknown setting
            candidates=candidates,
            samples=samples,
            calibration_samples=self.calibration_samples,
            seed=self.seed,
        )


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

# Every scene has at least this many scenes of its split that differ from it in one attribute.
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
    """The description of a picture; an `ImageSource` that renders it.

    `first` is above (vertical) or left of (horizontal) `second`. `background` and `jitter` (pixels of
    336 by which the two things are moved: first x, first y, second x, second y) are in no caption.
    """

    first: Thing
    second: Thing
    axis: Axis
    background: str = "white"
    jitter: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def meaning(self) -> Meaning:
        """The seven attributes that a caption names; two scenes of equal meaning match the same captions."""
        a, b = self.first, self.second
        return (a.size, a.colour, a.shape, b.size, b.colour, b.shape, self.axis)

    @property
    def split(self) -> SceneSplit:
        """Decided by colours and shapes: half of all combinations (colour, shape, colour, shape) are used for training only.

        The sum of the four indices is even in training and odd elsewhere. So no combination that a test, calibration or
        validation scene shows is ever trained on, while any three of the four attributes occur together on both sides. The
        other three splits differ by the jitter: they share no picture, but share combinations.
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
        return draw(self)

    def caption(self, *, from_second: bool = False) -> str:
        """E.g. "a large red circle above a small blue square"; `from_second` says the same in the other direction."""
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
        """Scenes of the same split with one difference: an attribute of one object, or the relation.

        Background and jitter stay. The order is fixed; at least LEAST_VARIANTS are returned.
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
    """A random scene of a split, uniform over its pairs of objects, with random background and jitter."""
    while True:
        first, second = (Thing(generator.choice(SIZES), generator.choice(COLOURS), generator.choice(SHAPES)) for _ in range(2))
        scene = Scene(first, second, generator.choice(AXES), generator.choice(BACKGROUNDS), _jitter(generator))
        if first != second and scene.split == split:
            return scene


def twin(scene: Scene, generator: random.Random) -> Scene:
    """The same objects in the same split on another background, with another jitter."""
    grounds = [ground for ground in BACKGROUNDS if ground != scene.background]
    while True:
        other = replace(scene, background=generator.choice(grounds), jitter=_jitter(generator))
        if other.split == scene.split:
            return other


def _jitter(generator: random.Random) -> tuple[int, int, int, int]:
    a, b, c, d = (generator.randint(-JITTER_ACROSS, JITTER_ACROSS) for _ in range(4))
    return (a, b, c, d)


Setting = Literal["random", "adversarial", "relations", "count"]

SETTINGS: tuple[Setting, ...] = ("random", "adversarial", "relations", "count")
MAX_CANDIDATES = LEAST_VARIANTS + 1


def draw_candidates(split: SceneSplit, setting: Setting, n: int, generator: random.Random) -> tuple[Scene, ...]:
    """N scenes of a split in random order, no two of equal meaning."""
    base = draw_scene(split, generator)
    scenes = [base]
    if setting == "adversarial":
        scenes += generator.sample(base.variants(), n - 1)
        generator.shuffle(scenes)
        return tuple(scenes)
    while len(scenes) < n:
        candidate = draw_scene(split, generator)
        if all(candidate.differences(other) > 1 for other in scenes):
            scenes.append(candidate)
    return tuple(scenes)


# The caption of every sample of the setting `relations`: its answer follows from the pictures alone.
RELATION = "an image that matches none of the others"


def draw_pairs(split: SceneSplit, n: int, generator: random.Random) -> tuple[tuple[Scene, ...], int]:
    """N scenes of a split in random order, N odd, and the index of the odd one out; the others form pairs of equal meaning.

    Scenes of different meaning differ in two attributes or more, as in the setting `random`.
    """
    single, *paired = draw_candidates(split, "random", (n + 1) // 2, generator)
    scenes = [single, *(picture for scene in paired for picture in (scene, twin(scene, generator)))]
    generator.shuffle(scenes)
    return tuple(scenes), scenes.index(single)


COUNTED_PICTURES = 3
"""Pictures of a sample of the setting `count`, of two objects each."""
COUNTED = "How many circles are there in all images?"


def draw_counted(split: SceneSplit, circles: int, generator: random.Random) -> tuple[Scene, ...]:
    """COUNTED_PICTURES scenes of a split that show this many circles together."""
    while True:
        scenes = draw_candidates(split, "random", COUNTED_PICTURES, generator)
        if sum(thing.shape == "circle" for scene in scenes for thing in (scene.first, scene.second)) == circles:
            return scenes


# Samples that a source draws once: its fingerprint, the plan and the check of prompts each go through all of them.
_REMEMBERED = 2_000


class ScenesSource:
    """Samples of the tasks `scenes_<setting>_n<candidates>`.

    Every sample has its own random generator, seeded with everything that identifies it, so that a limit only
    shortens the list. No training picture of the embedded model shows the two coloured shapes of a test
    picture together (see `Scene.split`).
    """

    def __init__(
        self, *, setting: Setting, candidates: int, samples: int = 500, calibration_samples: int = 20, seed: int = 0
    ) -> None:
        """Stores what determines the samples.

        Raises:
            DataError: an unknown setting, or more candidates than a scene has variants.
        """
        if setting not in SETTINGS:
            raise DataError(f"scenes: setting must be one of {', '.join(SETTINGS)}, not {setting!r}")
        if not 2 <= candidates <= MAX_CANDIDATES:
            raise DataError(f"scenes: candidates must be 2 to {MAX_CANDIDATES}, not {candidates}")
        if setting == "relations" and candidates % 2 == 0:
            raise DataError(f"scenes: pairs and one single picture are 3, 5, 7, ... candidates, not {candidates}")
        if setting == "count" and candidates > 2 * COUNTED_PICTURES:
            raise DataError(f"scenes: {COUNTED_PICTURES} pictures show at most {2 * COUNTED_PICTURES} circles, not {candidates}")
        if samples < 1 or calibration_samples < 0:
            raise DataError("scenes: samples must be positive and calibration_samples not negative")
        self.setting: Setting = setting
        self.candidates = candidates
        self.seed = seed
        self.counts: dict[SceneSplit, int] = {"test": samples, "calibration": calibration_samples}
        self._drawn: dict[tuple[Split, int], Sample] = {}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex digest, 32 characters, of every sample of both splits: ids, scene descriptions, captions, answers."""
        total = hashlib.sha256()
        for split in ("test", "calibration"):
            for s in self.samples(split):
                content = [s.id, [i.digest for i in s.images], s.caption, s.gold]
                if s.options is not None:
                    content.append(list(s.options))
                total.update(json.dumps(content).encode() + b"\n")
        return total.hexdigest()[:32]

    def samples(self, split: Split, limit: int | None = None) -> Iterator[Sample]:
        """Samples in a fixed order; `limit` only shortens the list."""
        count = self.counts[split]
        for index in range(count if limit is None else min(limit, count)):
            sample = self._drawn.get((split, index))
            if sample is None:
                sample = self._sample(split, split, index)
                if len(self._drawn) < _REMEMBERED:
                    self._drawn[split, index] = sample
            yield sample

    def further_calibration(self) -> Iterator[Sample]:
        """Endless calibration samples after those of the split; the fingerprint does not cover them."""
        for index in itertools.count(self.counts["calibration"]):
            yield self._sample("calibration", "calibration", index)

    def training_samples(self, limit: int) -> Iterator[Sample]:
        """Samples of the split that the embedded model was trained on: no test picture shows two of their coloured shapes."""
        for index in range(limit):
            yield self._sample("train", "calibration", index)

    def _sample(self, scenes_of: SceneSplit, split: Split, index: int) -> Sample:
        scenes, caption, gold = self.draw(scenes_of, index)
        name = f"scenes-{self.setting}-n{self.candidates}-s{self.seed}-{scenes_of}-{index:04d}"
        numbers = tuple(map(str, range(1, self.candidates + 1))) if self.setting == "count" else None
        return Sample(id=name, images=scenes, caption=caption, gold=gold, split=split, options=numbers)

    def draw(self, split: SceneSplit, index: int) -> tuple[tuple[Scene, ...], str, int]:
        """Scenes, caption and the right option's index of one sample; also for the recipe's splits."""
        generator = random.Random(f"scenes-1/{self.seed}/{split}/{self.setting}/{self.candidates}/{index}")
        if self.setting == "relations":
            pictures, single = draw_pairs(split, self.candidates, generator)
            return pictures, RELATION, single
        if self.setting == "count":
            gold = generator.randrange(self.candidates)
            return draw_counted(split, gold + 1, generator), COUNTED, gold
        scenes = draw_candidates(split, self.setting, self.candidates, generator)
        gold = generator.randrange(self.candidates)
        return scenes, scenes[gold].caption(from_second=generator.random() < 0.5), gold


SIDE = 336
_OVER = 2
RADIUS = {"small": 38, "large": 62}
_CENTRES = {"vertical": ((168, 92), (168, 244)), "horizontal": ((92, 168), (244, 168))}
_PAINT = {
    "red": (214, 39, 40),
    "blue": (31, 78, 200),
    "yellow": (245, 215, 40),
    "purple": (126, 47, 160),
    "green": (30, 140, 60),
    "orange": (250, 130, 20),
    "cyan": (20, 190, 210),
    "pink": (245, 130, 190),
}
_GROUND = {
    "white": (250, 250, 250),
    "grey": (190, 190, 190),
    "sand": (232, 222, 200),
    "mist": (205, 222, 235),
    "slate": (60, 66, 76),
}


def draw(scene: Scene) -> Image:
    """The picture, 336 x 336 RGB."""
    from PIL import Image as Pil
    from PIL import ImageDraw

    canvas = Pil.new("RGB", (SIDE * _OVER, SIDE * _OVER), _GROUND[scene.background])
    pen = ImageDraw.Draw(canvas)
    for thing, (x, y) in zip((scene.first, scene.second), centres(scene), strict=True):
        _paint(pen, thing, x * _OVER, y * _OVER)
    return canvas.reduce(_OVER)


def centres(scene: Scene) -> tuple[tuple[int, int], tuple[int, int]]:
    """Centres of the first and the second object, (x, y) in pixels."""
    (ax, ay), (bx, by) = _CENTRES[scene.axis]
    # Along the axis the objects must not overlap; across it they may move further.
    along = [value * JITTER_ALONG // JITTER_ACROSS for value in scene.jitter]
    if scene.axis == "vertical":
        return (ax + scene.jitter[0], ay + along[1]), (bx + scene.jitter[2], by + along[3])
    return (ax + along[0], ay + scene.jitter[1]), (bx + along[2], by + scene.jitter[3])


def _paint(pen: ImageDraw, thing: Thing, x: int, y: int) -> None:
    r = RADIUS[thing.size] * _OVER
    fill = _PAINT[thing.colour]
    if thing.shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif thing.shape == "square":
        h = r * 9 // 10
        pen.rectangle((x - h, y - h, x + h, y + h), fill=fill)
    elif thing.shape == "triangle":
        pen.polygon([(x, y - r), (x - r, y + r * 8 // 10), (x + r, y + r * 8 // 10)], fill=fill)
    else:
        arm = r * 3 // 10
        pen.rectangle((x - arm, y - r, x + arm, y + r), fill=fill)
        pen.rectangle((x - r, y - arm, x + r, y + arm), fill=fill)
