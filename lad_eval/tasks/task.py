"""A task that is ready to run: its definition together with its opened data."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lad_eval.errors import DataError
from lad_eval.tasks.facet_probe import facet_probe_orders
from lad_eval.tasks.prompts import identifiers, labelling_of, lists_options, question
from lad_eval.tasks.request import (
    AnswerKind,
    Arrangement,
    Permutation,
    Request,
    Sample,
    SampleSource,
    Split,
    draw_arrangements,
)
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
        """N, options per sample: images, unless the data has texts to choose from."""
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

    @cached_property
    def answer_kind(self) -> AnswerKind:
        """What the options of its samples are, by the first one; "images" if there is none."""
        first = next(iter(self.source.samples("test", 1)), None)
        return "images" if first is None else first.kind

    @cached_property
    def chooses_between_all_images(self) -> bool:
        """Whether every image is an option, and nothing else, by the first sample."""
        first = next(iter(self.source.samples("test", 1)), None)
        return first is None or first.options is None

    @property
    def varies_images_only(self) -> bool:
        """Whether other displayed orders move the images, while every option keeps its letter."""
        return self.spec.vary == "images"

    @cached_property
    def takes_labels(self) -> bool:
        """Whether its images may be labelled: each of them is an option, and the prompt does not list the options by place."""
        return self.chooses_between_all_images and not lists_options(self.spec.prompt)

    def arrangements(self, sample: Sample) -> tuple[Arrangement, ...]:
        """The T arrangements in which a test sample is displayed, the data's own first."""
        spec, same, movable = self.spec.permutations, Permutation.identity(self.candidates), len(sample.movable)
        if self.permutable and spec.scheme == "facet-probe":
            parts = movable if self.varies_images_only else self.candidates
            orders = facet_probe_orders(sample.id, parts, spec.count, spec.seed)
            return tuple(Arrangement(same, order) if self.varies_images_only else Arrangement(order) for order in orders)
        if not self.permutable or sample.kind != "texts" or self.spec.vary == "options":
            return tuple(map(Arrangement, self.orders))
        if self.spec.vary == "both":
            return draw_arrangements(self.candidates, movable, spec.count, spec.seed)
        return tuple(Arrangement(same, images) for _, images in draw_arrangements(1, movable, spec.count, spec.seed))

    def samples(self, split: Split = "test", limit: int | None = None) -> Iterator[Sample]:
        """Samples of a split in a fixed order: at most as many as the definition sets; `limit` only shortens the list.

        Test samples whose orders are bound in a way that the task varies are left out; see `left_out`.
        """
        count = self.spec.samples if split == "test" else self.spec.calibration.samples
        most = min((bound for bound in (count, limit) if bound is not None), default=None)
        if split == "calibration" or self.spec.vary is None:
            return self.source.samples(split, most)
        return itertools.islice((sample for sample in self.source.samples(split) if not self._bound(sample)), most)

    def left_out(self) -> Counter[str]:
        """Test samples that `samples` leaves out, by the reason why their order is bound."""
        if self.spec.vary is None:
            return Counter()
        return Counter(reason for sample in self.source.samples("test") if (reason := self._bound(sample)))

    def _bound(self, sample: Sample) -> str:
        """Why a sample cannot be shown in the orders that the task varies; empty if it can."""
        vary = self.spec.vary
        if vary == "images" and len(sample.movable) < 2:
            return "fewer than two images can move"
        reasons = (sample.bound.images if vary != "options" else "", sample.bound.options if vary != "images" else "")
        return next(filter(None, reasons), "")

    def request(self, sample: Sample, order: Permutation, image_order: Permutation | None = None) -> Request:
        """The sample's question in an arrangement, given by its two orders.

        Raises:
            DataError: an option is a text, and the prompt does not list the options; or images are to be labelled, and not each
                of them is an option.
        """
        names = sample.identifiers or self.identifiers
        labelling = labelling_of(self.prompt_variants)
        if labelling is not None and (sample.options is not None or lists_options(self.spec.prompt)):
            raise DataError(
                f"{self.name}: sample {sample.id!r} is not answered by naming one of all its images; leave out labelled."
            )
        if sample.kind != "images" and not lists_options(self.spec.prompt):
            raise DataError(
                f"{self.name}: sample {sample.id!r} has texts to choose from, and the prompt does not list them; set "
                "`prompt: choices`, or a template with {options}."
            )
        text = question(self.spec.prompt, sample.caption, names, self.prompt_variants, sample.option_texts(order))
        return Request.of(sample, order, text, names, image_order, labelling)
