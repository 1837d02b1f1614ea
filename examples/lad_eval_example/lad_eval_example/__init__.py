"""A method, a prompt variant and a source of another package; `pyproject.toml` makes them names of lad-eval."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image

from lad_eval.evidence.table import Evidence, Floats
from lad_eval.methods import EvidenceMethod
from lad_eval.methods.calibration import log_softmax
from lad_eval.parameters import Positive
from lad_eval.tasks import Sample, Split
from lad_eval.tasks.prompts import PromptVariant
from lad_eval.tasks.sources.base import SourceOptions


class MedianPrior(EvidenceMethod):
    """Log-probabilities minus the median log-probability that each position had in calibration."""

    name = "median-prior"
    calibrates = True

    def __init__(self, *, strength: Annotated[float, Positive()] = 1.0) -> None:
        self.strength = strength

    def _calibrate(self, evidence: Evidence) -> None:
        self.log_prior_ = np.median(log_softmax(evidence.log_probs), axis=0)

    def _scores(self, evidence: Evidence) -> Floats:
        return evidence.log_probs - self.strength * self.log_prior_


CAREFULLY = PromptVariant(add="Look at every image before you answer.", summary="Asks to look at every image.")


@dataclass(frozen=True)
class Square:
    """A picture of one shade, 0 (black) to 255 (white)."""

    shade: int

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"square {self.shade}".encode()).hexdigest()

    def load(self) -> Image.Image:
        return Image.new("RGB", (64, 64), (self.shade,) * 3)


@dataclass(frozen=True)
class Grey:
    candidates: int
    test: int
    calibration: int

    @property
    def fingerprint(self) -> str:
        return f"grey-1-{self.candidates}-{self.test}-{self.calibration}"

    def samples(self, split: Split, limit: int | None = None) -> Iterator[Sample]:
        start, stop = (0, self.calibration) if split == "calibration" else (self.calibration, self.calibration + self.test)
        for i in list(range(start, stop))[:limit]:
            shades = [(i * self.candidates + k) % 256 for k in range(self.candidates)]
            caption = f"a square of shade {shades[0]}"
            yield Sample(id=f"grey-{i}", images=tuple(map(Square, shades)), caption=caption, gold=0, split=split)


class GreyOptions(SourceOptions):
    """No keys under `data:`; every sample has squares of its own."""

    def open(self, *, setting: str, candidates: int, samples: int | None, calibration_samples: int, folder: Path) -> Grey:
        return Grey(candidates, samples or 20, calibration_samples)
