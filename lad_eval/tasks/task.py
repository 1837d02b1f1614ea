"""A task that is ready to run: its definition together with its opened data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lad_eval.errors import DataError
from lad_eval.tasks.prompts import identifiers, question
from lad_eval.tasks.request import Permutation, Request, Sample, SampleSource, Split
from lad_eval.tasks.sources import options_of

if TYPE_CHECKING:
    from lad_eval.tasks.spec import TaskSpec


@dataclass(frozen=True)
class Task:
    """A task: `spec` is its definition, `source` holds the samples.

    Attributes:
        spec: the definition.
        source: its data, opened.
        other: the task that gives the calibration samples, where `spec.calibration.on` names one; see `calibrated_on`.
        prompt_variants: of the question, names of `lad_eval.tasks.prompts.PROMPT_VARIANTS`; see `with_prompt`.
        folder: where relative paths of `spec.data` start; None: not known.
    """

    spec: TaskSpec
    source: SampleSource
    other: Task | None = None
    prompt_variants: tuple[str, ...] = ()
    folder: Path | None = None

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
            folder=(start := Path.cwd() if folder is None else folder),
        )
        return cls(spec, source, folder=start)

    def calibrated_on(self, other: Task) -> Task:
        """This task with the calibration samples of another; of its own, if that is what is given.

        Raises:
            DataError: the other task has another number of candidates or other identifiers.
        """
        if other.fingerprint == self.fingerprint:
            return self
        if other.candidates != self.candidates:
            raise DataError(
                f"{self.name} cannot be calibrated on {other.name}: it has {self.candidates} candidates, and {other.name} has "
                f"{other.candidates}; choose a task of {self.candidates}."
            )
        if other.identifiers != self.identifiers:
            raise DataError(
                f"{self.name} cannot be calibrated on {other.name}: their candidates are named {', '.join(self.identifiers)} "
                f"and {', '.join(other.identifiers)}; choose a task of the same identifiers."
            )
        return replace(self, spec=self.spec.calibrated_on(other.name), other=replace(other, other=None))

    def with_prompt(self, *prompt_variants: str) -> Task:
        """This task, and the one that it calibrates on, with a prompt variant of the question."""
        other = None if self.other is None else self.other.with_prompt(*prompt_variants)
        return replace(self, other=other, prompt_variants=prompt_variants)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def candidates(self) -> int:
        """N, images per sample."""
        return self.spec.candidates

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """What determines the requests: digests of the definition and of the data's content, here and where it calibrates."""
        parts = {"task": self.name, "spec": self.spec.digest, "data": self.source.fingerprint}
        if self.prompt_variants:
            parts["wordings"] = "+".join(self.prompt_variants)
        if self.other is None:
            return parts
        return {**parts, **{f"calibration_{key}": value for key, value in self.other.fingerprint.items()}}

    @cached_property
    def identifiers(self) -> tuple[str, ...]:
        return identifiers(self.spec.identifiers, self.candidates)

    @property
    def permutable(self) -> bool:
        """Whether images may be shown in other orders than the data's; a source forbids it with `permutable = False`."""
        return bool(getattr(self.source, "permutable", True))

    @cached_property
    def orders(self) -> tuple[Permutation, ...]:
        """The T displayed orders of every test sample, the identity first; only the identity if the source forbids others."""
        if not self.permutable:
            return (Permutation.identity(self.candidates),)
        return self.spec.permutations.orders(self.candidates)

    def samples(self, split: Split = "test", limit: int | None = None) -> Iterator[Sample]:
        """Samples of a split in a fixed order: at most as many as the definition sets; `limit` only shortens the list."""
        count = self.spec.samples if split == "test" else self.spec.calibration.samples
        bounds = [bound for bound in (count, limit) if bound is not None]
        return self.source.samples(split, min(bounds) if bounds else None)

    def request(self, sample: Sample, order: Permutation) -> Request:
        """The sample's question with its images in a displayed order."""
        names = sample.identifiers or self.identifiers
        return Request.of(sample, order, question(self.spec.prompt, sample.caption, names, self.prompt_variants), names)
