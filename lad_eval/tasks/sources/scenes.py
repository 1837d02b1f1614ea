"""The embedded data: pictures of two coloured things, drawn when they are needed.

`random`: N scenes that differ from each other in two things or more. `adversarial`: a scene and N - 1
variants of it that differ from it in one thing each; any of the N may be the right one.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

from lad_eval.errors import DataError
from lad_eval.tasks.sample import Sample, Split
from lad_eval.tasks.sources.scenes_world import LEAST_VARIANTS, Scene, SceneSplit, draw_scene

Setting = Literal["random", "adversarial"]

SETTINGS: tuple[Setting, ...] = ("random", "adversarial")
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


class ScenesSource:
    """Samples of the tasks `scenes_<setting>_n<candidates>`.

    Every sample has a random generator of its own, seeded with all that names it, so that a limit only
    shortens the list. What the embedded model was trained on never showed the two coloured shapes of a test
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
        if samples < 1 or calibration_samples < 0:
            raise DataError("scenes: samples must be positive and calibration_samples not negative")
        self.setting: Setting = setting
        self.candidates = candidates
        self.seed = seed
        self.counts: dict[SceneSplit, int] = {"test": samples, "calibration": calibration_samples}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 hex digest, 32 characters, of every sample of both splits: ids, scene descriptions, captions, answers."""
        total = hashlib.sha256()
        for split in ("test", "calibration"):
            for s in self.samples(split):
                content = [s.id, [i.digest for i in s.images], s.caption, s.gold]
                total.update(json.dumps(content).encode() + b"\n")
        return total.hexdigest()[:32]

    def samples(self, split: Split, limit: int | None = None) -> Iterator[Sample]:
        """Samples in a fixed order; `limit` only shortens the list."""
        count = self.counts[split]
        for index in range(count if limit is None else min(limit, count)):
            scenes, caption, gold = self.draw(split, index)
            name = f"scenes-{self.setting}-n{self.candidates}-s{self.seed}-{split}-{index:04d}"
            yield Sample(id=name, images=scenes, caption=caption, gold=gold, split=split)

    def draw(self, split: SceneSplit, index: int) -> tuple[tuple[Scene, ...], str, int]:
        """Scenes, caption and the described scene's index of one sample; also of the recipe's own splits."""
        generator = random.Random(f"scenes-1/{self.seed}/{split}/{self.setting}/{self.candidates}/{index}")
        scenes = draw_candidates(split, self.setting, self.candidates, generator)
        gold = generator.randrange(self.candidates)
        return scenes, scenes[gold].caption(from_second=generator.random() < 0.5), gold
