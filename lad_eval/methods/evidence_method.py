"""Methods that score evidence row by row: scikit-learn's contract, with the common checks in one place."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from lad_eval.errors import EvidenceError
from lad_eval.evidence.table import Evidence, Floats, Ints
from lad_eval.methods.base import Answers, Method, NotCalibratedError, Requirement, Results, evidence_of, passes_of
from lad_eval.methods.calibration import check_design, log_softmax
from lad_eval.tasks.probes import Probe

E = TypeVar("E", bound="EvidenceMethod")


class EvidenceMethod(Method):
    """Scores every row of evidence: `calibrate(evidence.calibration)`, then `predict(evidence.test)`.

    A subclass writes `_scores` and, if it calibrates, `_calibrate`.

    Attributes:
        needs: the evidence it reads; missing "attention" is an error and never replaced.
        calibrates: whether `calibrate` must be called before the first answer.
        learned_shapes: shapes of the learned state by attribute, one letter per dimension: N (candidates), L (layers);
            a file with other shapes is refused.
        n_candidates_: N of the calibration (after `calibrate`).
        n_layers_: L of the calibration; 0 for a method that reads no attention.
        calibration_ids_: Str[samples], the samples calibrated on, sorted.
    """

    needs: frozenset[Requirement] = frozenset({"log_probs"})
    calibrates: bool = False
    learned_shapes: ClassVar[Mapping[str, str]] = {}

    n_candidates_: int
    n_layers_: int
    calibration_ids_: npt.NDArray[np.str_]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.calibrates and cls._calibrate is EvidenceMethod._calibrate:
            raise TypeError(f"{cls.__name__} calibrates, and so must write _calibrate(self, evidence)")

    @property
    def is_calibrated(self) -> bool:
        return not self.calibrates or "calibration_ids_" in vars(self)

    def calibrate(self: E, evidence: Evidence) -> E:
        self.check()
        if not self.calibrates:
            return self
        self._check_rows(evidence, self.calibration_probes)
        check_design(evidence)
        self._calibrate(evidence)
        self.n_candidates_ = evidence.n_candidates
        self.n_layers_ = self._attention(evidence).shape[1] if "attention" in self.needs else 0
        self.calibration_ids_ = np.unique(evidence.sample_id)
        return self

    def _has_learned(self) -> bool:
        state = self.learned_state()
        sizes = {"N": state.get("n_candidates_"), "L": state.get("n_layers_")}
        return self.is_calibrated and all(
            name in state and np.shape(state[name]) == tuple(sizes[letter] for letter in shape)
            for name, shape in self.learned_shapes.items()
        )

    def predict_log_proba(self, evidence: Evidence) -> Floats:
        """Normalised log-probabilities Float[n, N] of the displayed positions, one row per row of evidence.

        For a method with scores only, their log-softmax.

        Raises:
            NotCalibratedError: it calibrates and was not calibrated.
            EvidenceError: there are no rows, they lack what the method needs, differ in N or L from the calibration, or hold a
                calibration sample.
            ParameterError: a parameter cannot have its value.
        """
        self.check()
        if not self.is_calibrated:
            raise NotCalibratedError(f"{self.name} is not calibrated: call calibrate(evidence.calibration) first.")
        self._check_rows(evidence, self.probes)
        if self.calibrates:
            self._check_fits_calibration(evidence)
        return log_softmax(self._scores(evidence))

    def predict(self, evidence: Evidence) -> Ints:
        """The answers, Int[n]: 0-based displayed positions; the first of equal candidates. Errors as `predict_log_proba`."""
        return most_probable(self.predict_log_proba(evidence))

    def decide(self, results: Results, index: Ints) -> Answers:
        log_proba = self.predict_log_proba(evidence_of(results, self))[index[:, 0]]
        return Answers(log_proba, most_probable(log_proba), passes_of(results, index))

    @abstractmethod
    def _scores(self, evidence: Evidence) -> Floats:
        """Finite scores Float[n, N]; the greatest is the answer."""

    def _calibrate(self, evidence: Evidence) -> None:
        """Learns from rows that passed the common checks; a class with `calibrates` true must write it."""

    def _attention(self, evidence: Evidence) -> Floats:
        """Float[n, L, N] of the span that the method reads: parameter `span` if it has one, else the images' own tokens."""
        span = getattr(self, "span", "image")
        attention = evidence.attention_delimited if span == "delimited" else evidence.attention
        if attention is None:
            raise EvidenceError(
                f"{self.name} needs attention (span {span!r}) and this evidence has none, as where options are "
                "texts; collect it with attention, or use a method that reads log_probs only."
            )
        return attention

    def _check_rows(self, evidence: Evidence, probes: Sequence[Probe]) -> None:
        if not len(evidence):
            raise EvidenceError(f"{self.name} got no rows of evidence.")
        if lacking := [probe.label for probe in probes if probe.label not in evidence.probes]:
            raise EvidenceError(
                f"{self.name} needs {lacking[0]} of each row and this evidence has none: `lad-eval run --methods {self.name}` "
                "and `lad_eval.collect` run it."
            )
        if "attention" in self.needs:
            attention = self._attention(evidence)
            if unseen := int((~attention.any(axis=(1, 2))).sum()):
                raise EvidenceError(
                    f"{unseen} of {len(evidence)} rows have no attention to any image in any layer: collect them again."
                )

    def _check_fits_calibration(self, evidence: Evidence) -> None:
        if evidence.n_candidates != self.n_candidates_:
            raise EvidenceError(
                f"{self.name} was calibrated with N = {self.n_candidates_} candidates and this evidence has "
                f"N = {evidence.n_candidates}: calibrate with the same N."
            )
        if "attention" in self.needs and (layers := self._attention(evidence).shape[1]) != self.n_layers_:
            raise EvidenceError(
                f"{self.name} was calibrated with {self.n_layers_} layers of attention and this evidence has {layers}: "
                "calibrate on the same model."
            )
        if len(shared := np.intersect1d(evidence.sample_id, self.calibration_ids_)):
            raise EvidenceError(
                f"{len(shared)} evaluated samples were also calibrated on ({_some(shared)}): evaluate evidence.test alone."
            )


def _some(names: npt.NDArray[np.str_], most: int = 3) -> str:
    return ", ".join(names[:most].tolist()) + (", ..." if len(names) > most else "")


def most_probable(log_proba: Floats) -> Ints:
    """Int[n]: the position of the greatest value in every row of Float[n, N], the first of equal ones."""
    answers: Ints = log_proba.argmax(axis=1).astype(np.int64)
    return answers
