"""The base classes of interventions. No torch here until one is applied."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from lad_eval.attention.interventions.learned import RELEARN, LearnedState
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.names import spell
from lad_eval.parameters import check_values, fields_of

if TYPE_CHECKING:
    from lad_eval.attention.layout import PromptLayout

LEARNED = "learned.*.safetensors"
"""Files of learned states, `*` for the intervention's name."""
Acted = Callable[[], None]
"""Called whenever an attention call of a prefill was changed."""
Passes = Iterable[tuple["PromptLayout", Callable[[], None]]]
"""Prompts to calibrate on, each with a function that runs the model on them under the open hooks; iterable repeatedly."""


def _file(folder: Path, name: str) -> Path:
    return folder / LEARNED.replace("*", name)


@dataclass(frozen=True)
class Intervention(ABC):
    """A change of a model's forward pass and its parameters; immutable and hashable.

    A subclass is a frozen dataclass with its parameters as fields, whose annotations say which values are allowed (see
    `lad_eval.parameters`); fields with metadata are not parameters.

    Attributes:
        name: in the names of methods.
        idle: why there may be nothing to change; completes "changed no attention call".
        order_invariant: whether log-probabilities are the same for every order of the images, so that they name no image.
        sole: a kind of which a method may have only one, such as "pruner"; empty: any number.
    """

    name: ClassVar[str]
    idle: ClassVar[str] = ""
    sole: ClassVar[str] = ""
    order_invariant: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Checks the parameters; raises ParameterError if one cannot have its value."""
        parameters = fields_of(type(self))
        check_values(self.name, parameters, vars(self))
        for name in parameters:
            if isinstance(value := getattr(self, name), np.generic):
                object.__setattr__(self, name, value.item())  # facts are written as JSON

    @property
    def facts(self) -> dict[str, Any]:
        """JSON-serialisable: the name and every parameter. Part of the evidence's fingerprint."""
        return {"name": self.name, **{f.name: getattr(self, f.name) for f in fields(self) if not f.metadata}}

    @property
    def label(self) -> str:
        """The name, and the parameters that are not the defaults: "sofa", "sofa(sigma=0.3)"."""
        parameters = [f for f in fields(self) if not f.metadata]
        return spell(self.name, {f.name: getattr(self, f.name) for f in parameters if getattr(self, f.name) != f.default})

    @contextmanager
    def applied(self, model: Any, layout: PromptLayout) -> Iterator[None]:
        """Open while the model reads the prompts that `layout` describes, and writes its replies to them.

        Raises:
            UserError: it is not calibrated yet.
            UnsupportedModelError: the model cannot be changed in this way; or nothing was changed by the time the context
                closes, so that the answers would be the unchanged model's under another name.
        """
        for member in self.members:
            if not member.is_ready:
                raise UserError(f"{member.label} has learned nothing yet; calibrate it, or load what it learned.")
        if not self._concerns(layout):
            yield
            return
        count = 0

        def acted() -> None:
            nonlocal count
            count += 1

        with self._attached(model, layout, acted):
            yield
        if not count:
            raise UnsupportedModelError(
                f"{type(model).__name__}: {self.label} changed no attention call{self.idle and ', ' + self.idle}; its answers "
                f"would be the unchanged model's, so leave out the methods with {self.name}."
            )

    def _concerns(self, layout: PromptLayout) -> bool:
        """Whether such prompts are changed at all; if not (prompts of one image, for example), the unchanged model runs them."""
        return True

    @property
    def members(self) -> tuple[Intervention, ...]:
        """Its parts: itself, or the interventions that are joined."""
        return (self,)

    @property
    def reads_padding(self) -> bool:
        """Whether it, or what it learns, depends on which visual tokens show padding; see `PromptLayout.padding_share`."""
        return False

    @property
    def is_ready(self) -> bool:
        """Whether it has nothing to learn, or has learned it."""
        return True

    @property
    def learned_states(self) -> tuple[LearnedState, ...]:
        """The learned states of its parts; empty for an intervention that learns nothing."""
        return ()

    def calibrated(self, model: Any, passes: Passes, origin: Mapping[str, Any] | None = None) -> Intervention:
        """The intervention with what it learns from calibration prompts; itself if it has nothing to learn.

        Args:
            model: without interventions.
            passes: of the model over the prompts.
            origin: JSON-serialisable facts about model and prompts, stored with the learned state.
        """
        return self

    def calibration_samples_wanted(self, candidates: int) -> int:
        """Number of samples, of `candidates` images each, that it should be calibrated on; 0 if there is nothing to learn."""
        return 0

    def calibration_notes(self, samples: int) -> tuple[str, ...]:
        """Notes for readers of the figures on a calibration on this many samples, one line each."""
        return ()

    @property
    def learned_notes(self) -> tuple[str, ...]:
        """Notes for readers of the figures on the learned state, one line each."""
        return ()

    def save_learned(self, folder: Path) -> None:
        """Writes the learned state into a folder, one file per part that learns.

        Raises:
            UserError: a file cannot be written.
        """
        for state in self.learned_states:
            state.save(_file(folder, state.intervention))

    def load_learned(self, folder: Path, origin: Mapping[str, Any] | None = None) -> Intervention:
        """The intervention with the state that `save_learned` wrote, as far as there is one; see `is_ready`.

        Args:
            folder: that the state was written to.
            origin: what it must have been learned from, as for `calibrated`; None: anything.

        Raises:
            UserError: a file is damaged, or belongs to another intervention.
            EvidenceError: it was learned from something else.
        """
        return self

    def check_disjoint(self, sample_ids: Sequence[str], images: Sequence[str]) -> None:
        """Refuses evaluated samples and pictures (ids and digests) that it was calibrated on.

        Raises:
            EvidenceError: there are some.
        """
        return

    @abstractmethod
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> AbstractContextManager[None]:
        """Hooks on the model, open while the context is; `acted` is called for every attention call that they change."""


@dataclass(frozen=True)
class CalibratedIntervention(Intervention):
    """An intervention with learned state: its digest is part of the facts, and so of the fingerprint.

    Attributes:
        learned: None before calibration.
    """

    learned: LearnedState | None = field(default=None, kw_only=True, repr=False, metadata={"learned": True})

    @property
    def facts(self) -> dict[str, Any]:
        return {**super().facts, "learned": None if self.learned is None else self.learned.digest}

    @property
    def is_ready(self) -> bool:
        return self.learned is not None

    @property
    def learned_states(self) -> tuple[LearnedState, ...]:
        return () if self.learned is None else (self.learned,)

    @property
    def calibration_samples(self) -> int:
        """Number of samples that it should be calibrated on; with fewer, a run has a note."""
        return 1

    @property
    def calibration_requests(self) -> int:
        """Number of requests that it should be calibrated on; each sample is run in as many orders as it has images."""
        return 0

    def calibration_samples_wanted(self, candidates: int) -> int:
        return 0 if self.is_ready else max(self.calibration_samples, math.ceil(self.calibration_requests / candidates))

    def calibration_notes(self, samples: int) -> tuple[str, ...]:
        if samples >= self.calibration_samples:
            return ()
        return (
            f"{self.label} was calibrated on {samples} sample{'s' if samples > 1 else ''} and needs at least "
            f"{self.calibration_samples}; give the task's calibration split more.",
        )

    def calibrated(self, model: Any, passes: Passes, origin: Mapping[str, Any] | None = None) -> CalibratedIntervention:
        """Learns from passes of the unchanged model; the samples and pictures are stored with the learned state."""
        if self.is_ready:
            return self
        sample_ids: dict[str, None] = {}
        images: dict[str, None] = {}
        prompts = 0

        def noted() -> Iterator[tuple[PromptLayout, Callable[[], None]]]:
            nonlocal prompts
            for layout, run in passes:
                sample_ids.update(dict.fromkeys(layout.sample_ids))
                images.update(dict.fromkeys(layout.images))
                prompts += len(layout.ids)
                yield layout, run

        arrays = self._learn(model, noted())
        if not sample_ids:
            raise UserError(f"{self.label} cannot be calibrated on no samples.")
        made_from = self._made_from(origin or {})
        state = LearnedState.of(self.name, arrays, sorted(sample_ids), sorted(images), origin=made_from, passes=prompts)
        return replace(self, learned=state)

    def load_learned(self, folder: Path, origin: Mapping[str, Any] | None = None) -> CalibratedIntervention:
        path = _file(folder, self.name)
        if self.is_ready or not path.exists():
            return self
        state = LearnedState.load(path, self.name)
        state.check_origin(self._made_from(state.origin if origin is None else origin), path)
        if fault := self.fault_of_learned(state.arrays):
            raise UserError(f"{path} does not hold what {self.label} learns: {fault}; {RELEARN}")
        return replace(self, learned=state)

    def fault_of_learned(self, arrays: Mapping[str, npt.NDArray[np.float64]]) -> str | None:
        """Why stored arrays, all finite, cannot be this intervention's learned state; None if they can."""
        return None if arrays else "there are no arrays"

    def _made_from(self, origin: Mapping[str, Any]) -> dict[str, Any]:
        """The facts without those about model and prompts in the origin."""
        return {**origin, "parameters": super().facts}

    def check_disjoint(self, sample_ids: Sequence[str], images: Sequence[str]) -> None:
        if self.learned is not None:
            self.learned.check_disjoint(self.label, sample_ids, images)

    @abstractmethod
    def _learn(self, model: Any, passes: Passes) -> dict[str, Any]:
        """Float arrays by name, learned from all passes, each run once."""


@dataclass(frozen=True)
class JoinedIntervention(Intervention):
    """Several interventions at once, in written order: the first is opened first, so that its hooks are the outermost."""

    parts: tuple[Intervention, ...] = field(metadata={"members": True})
    name: ClassVar[str] = "joined"

    @property
    def facts(self) -> dict[str, Any]:
        return {"name": "+".join(part.name for part in self.parts), "parts": [part.facts for part in self.parts]}

    @property
    def label(self) -> str:
        return "+".join(part.label for part in self.parts)

    @property
    def members(self) -> tuple[Intervention, ...]:
        return self.parts

    @property
    def reads_padding(self) -> bool:
        return any(part.reads_padding for part in self.parts)

    @property
    def is_ready(self) -> bool:
        return all(part.is_ready for part in self.parts)

    @property
    def learned_states(self) -> tuple[LearnedState, ...]:
        return tuple(state for part in self.parts for state in part.learned_states)

    def calibrated(self, model: Any, passes: Passes, origin: Mapping[str, Any] | None = None) -> JoinedIntervention:
        """Each part learns from passes of the unchanged model, without the others."""
        return JoinedIntervention(tuple(part.calibrated(model, passes, origin) for part in self.parts))

    def calibration_samples_wanted(self, candidates: int) -> int:
        return max(part.calibration_samples_wanted(candidates) for part in self.parts)

    def calibration_notes(self, samples: int) -> tuple[str, ...]:
        return tuple(note for part in self.parts for note in part.calibration_notes(samples))

    @property
    def learned_notes(self) -> tuple[str, ...]:
        return tuple(note for part in self.parts for note in part.learned_notes)

    def load_learned(self, folder: Path, origin: Mapping[str, Any] | None = None) -> JoinedIntervention:
        return JoinedIntervention(tuple(part.load_learned(folder, origin) for part in self.parts))

    def check_disjoint(self, sample_ids: Sequence[str], images: Sequence[str]) -> None:
        for part in self.parts:
            part.check_disjoint(sample_ids, images)

    @contextmanager
    def _attached(self, model: Any, layout: PromptLayout, acted: Acted) -> Iterator[None]:
        """The hooks of every part; one that changed nothing is an error, whatever the others did."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.applied(model, layout))
            yield
        acted()  # every part did, or its context would have raised


def join_interventions(parts: Sequence[Intervention]) -> Intervention | None:
    """One intervention that applies all of them in order; None if there are none.

    Raises:
        UserError: two are of a kind of which a method may have only one.
    """
    single = [member for part in parts for member in part.members]
    for kind in dict.fromkeys(part.sole for part in single if part.sole):
        if len(names := [part.name for part in single if part.sole == kind]) > 1:
            raise UserError(f"{' and '.join(names)} are {kind}s, and a method has one {kind} at most.")
    return JoinedIntervention(tuple(single)) if len(single) > 1 else next(iter(single), None)
