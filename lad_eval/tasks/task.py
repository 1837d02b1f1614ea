"""A task that is ready to be asked: its definition together with its opened data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lad_eval.tasks.identifiers import identifiers
from lad_eval.tasks.permutation import Permutation
from lad_eval.tasks.prompts import question
from lad_eval.tasks.request import Request
from lad_eval.tasks.sample import Sample, Source, Split
from lad_eval.tasks.sources import options_of

if TYPE_CHECKING:
    from lad_eval.tasks.spec import TaskSpec


@dataclass(frozen=True)
class Task:
    """What is asked: `spec` says how, `source` holds the samples."""

    spec: TaskSpec
    source: Source

    @classmethod
    def of(cls, spec: TaskSpec, folder: Path | None = None) -> Task:
        """Opens the data of a definition; relative paths in it start at `folder`, by default the working directory.

        Raises:
            DataError: data is missing, unreadable or too little.
        """
        options = options_of(spec.source).model_validate(spec.data)
        source = options.open(
            setting=spec.setting,
            candidates=spec.candidates,
            samples=spec.samples,
            calibration_samples=spec.calibration.samples,
            folder=Path.cwd() if folder is None else folder,
        )
        return cls(spec, source)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def candidates(self) -> int:
        """N, images a sample."""
        return self.spec.candidates

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """What determines the requests: digests of the definition and of the data's content."""
        return {"task": self.name, "spec": self.spec.digest, "data": self.source.fingerprint}

    @cached_property
    def identifiers(self) -> tuple[str, ...]:
        return identifiers(self.spec.identifiers, self.candidates)

    @cached_property
    def orders(self) -> tuple[Permutation, ...]:
        """The T displayed orders of every test sample, the identity first."""
        return self.spec.permutations.orders(self.candidates)

    def samples(self, split: Split = "test", limit: int | None = None) -> Iterator[Sample]:
        """Samples of a split in a fixed order: at most as many as the definition asks for; `limit` only shortens the list."""
        asked = self.spec.samples if split == "test" else self.spec.calibration.samples
        bounds = [bound for bound in (asked, limit) if bound is not None]
        return self.source.samples(split, min(bounds) if bounds else None)

    def request(self, sample: Sample, order: Permutation) -> Request:
        """The sample's question with its images in a displayed order."""
        return Request.of(sample, order, question(self.spec.prompt, sample.caption, self.identifiers), self.identifiers)
