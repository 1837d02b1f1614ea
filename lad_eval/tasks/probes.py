"""Probes: requests with some of their content replaced, which show what a model answers without it.

A probe has no right answer. Requests whose replaced parts are all that set them apart become one probe, so it belongs to several
displayed orders, and has none: it is joined to requests by position.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import numpy as np

from lad_eval.errors import UserError
from lad_eval.names import spell
from lad_eval.tasks.plan import Plan
from lad_eval.tasks.request import ImageSource, Permutation, Request, Sample
from lad_eval.tasks.task import Task

if TYPE_CHECKING:
    from PIL.Image import Image

ProbeImages = Literal["own", "grey", "noise"]
ProbeCaption = Literal["own", "na", "empty", "mask", "words"]
CONTENT_FREE: tuple[ProbeCaption, ...] = ("na", "empty", "mask")
"""Captions without content, as released for contextual calibration (arXiv 2102.09690)."""
_TEXTS: Mapping[ProbeCaption, str] = MappingProxyType({"na": "N/A", "empty": "", "mask": "[MASK]"})
_SIZE = (336, 336)
_SEED = 42
_SHARED = "probe"
"""Sample of a probe that all samples share."""


@dataclass(frozen=True)
class BlankImage:
    """A picture without content.

    Attributes:
        seed: of noise, uniform in 0..255; None: grey, 128.
        like: a picture whose size it has; None: 336 x 336. With the same size the prompt has as many tokens.
    """

    seed: int | None
    like: ImageSource | None = None

    @property
    def digest(self) -> str:
        kind = "grey" if self.seed is None else f"noise {self.seed}"
        return f"{kind} {'336 x 336' if self.like is None else self.like.digest}"

    def load(self) -> Image:
        from PIL import Image

        width, height = _SIZE if self.like is None else self.like.load().size
        if self.seed is None:
            return Image.new("RGB", (width, height), (128, 128, 128))
        noise = np.random.default_rng(self.seed).integers(256, size=(height, width, 3), dtype=np.uint8)
        return Image.fromarray(noise)


@dataclass(frozen=True)
class Probe:
    """What is replaced in a request.

    Attributes:
        images: "own", or "grey" or "noise" (another at each position) in the size of the sample's first image.
        caption: "own", "na" ("N/A"), "empty", "mask" ("[MASK]"), or "words": as many words as a calibration caption has on
            average, drawn from all of these captions, others for each calibration request (arXiv 2305.19148).
        token_map: whether the attention to every image token is recorded, `Evidence.token_map`. With own images and caption this
            is the request itself, run again for its map.
    """

    images: ProbeImages = "own"
    caption: ProbeCaption = "own"
    token_map: bool = False

    @property
    def label(self) -> str:
        """As in names of folders and in messages: "probe(images=grey, caption=na)"."""
        parts = {"images": self.images, "caption": self.caption, **({"token_map": "on"} if self.token_map else {})}
        return spell("probe", {name: value for name, value in parts.items() if value != "own"})

    @cached_property
    def facts(self) -> dict[str, str | bool]:
        """JSON-serialisable; part of the evidence's fingerprint."""
        facts: dict[str, str | bool] = {"images": self.images, "caption": self.caption}
        return {**facts, "token_map": True} if self.token_map else facts

    def plan(self, task: Task, plan: Plan) -> Plan:
        """The plan whose every key is that of the probe of the request in the same place.

        Raises:
            UserError: the caption is the task's whole question, so that it cannot be replaced.
        """
        if self.caption != "own" and task.spec.prompt == "verbatim":
            raise UserError(
                f"{task.name} asks its samples' own questions (prompt: verbatim), in which no caption can be replaced; leave out "
                "the methods that need such probes."
            )
        words = _drawn_words([request.caption or "" for request in plan.calibration_requests()])
        texts = dict(zip(plan.calibration, words, strict=True))
        probes = {request.key: self._request(task, request, texts.get(request.key, "")) for request in plan.requests}
        requests = {probe.key: probe for probe in probes.values()}

        def keys(of: Sequence[str]) -> tuple[str, ...]:
            return tuple(probes[key].key for key in of)

        return replace(
            plan,
            requests=tuple(requests.values()),
            evaluated=keys(plan.evaluated),
            cyclic=tuple(map(keys, plan.cyclic)),
            random=tuple(map(keys, plan.random)),
            calibration=keys(plan.calibration),
            repeats=(),
        )

    def _request(self, task: Task, request: Request, words: str) -> Request:
        own_caption, own_images = self.caption == "own", self.images == "own"
        shared = not own_caption and not own_images
        places = request.places or ()  # probes are of tasks whose options are all images
        seeds = range(len(request.images)) if self.images == "noise" else itertools.repeat(None, len(request.images))
        first = None if shared else request.images[request.permutation.inverse.apply(places)[0]]
        sample = Sample(
            id=_SHARED if shared else request.sample_id,
            images=request.images if own_images else tuple(BlankImage(seed, first) for seed in seeds),
            caption=(request.caption or "") if own_caption else _TEXTS.get(self.caption, words),
            gold=0,
            split="test" if shared else request.split,
            identifiers=request.listed_identifiers,
        )
        origin = (task.other or task) if request.split == "calibration" else task
        made = origin.request(sample, Permutation.identity(len(request.images)))
        # Labels stand where the request has them.
        return replace(made, identifiers=request.identifiers, candidates=request.candidates)


def _drawn_words(captions: Sequence[str]) -> list[str]:
    """As many texts as captions, each of words drawn from all of them with replacement, and a full stop."""
    words = [word for caption in captions for word in caption.lower().split()]
    length = math.ceil(len(words) / max(1, len(captions)))
    generator = random.Random(_SEED)
    return [" ".join([*generator.choices(words, k=length), "."]) for _ in captions]
