"""Requests over images of noise, for models with random weights."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from lad_eval.tasks.prompts import identifiers, question
from lad_eval.tasks.request import Permutation, Request


@dataclass(frozen=True)
class Noise:
    """An image of noise; `size` is (width, height) in pixels."""

    seed: int
    size: tuple[int, int] = (56, 56)

    @property
    def digest(self):
        return f"noise-{self.seed}-{self.size}"

    def load(self):
        width, height = self.size
        return Image.fromarray(np.random.default_rng(self.seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def make_requests(n, count, style="1..", *, size=(56, 56)):
    """Requests whose captions have 0, 1, 2, ... words more than the first one's."""
    names = identifiers(style, n)
    return [
        Request(
            sample_id=f"s{i}",
            permutation=Permutation.identity(n).shifted(i),
            images=tuple(Noise(100 * i + j, size) for j in range(n)),
            question=question("retrieval", " ".join(["a red circle", *["blue"] * i]), names),
            identifiers=names,
            gold_position=i % n,
            split="test",
        )
        for i in range(count)
    ]
