"""What every method is: scikit-learn's contract on evidence, with the common checks made once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence.replies import UNKNOWN_PASSES, Decoding, Replies
from lad_eval.evidence.table import Evidence, Floats, Ints
from lad_eval.methods import calibration
from lad_eval.methods.calibration import log_softmax
from lad_eval.methods.condition import PLAIN, Condition
from lad_eval.methods.state import load_state, save_state
from lad_eval.parameters import Parameter, ParameterError, check_names, check_values, declared_by
from lad_eval.tasks.plan import Orders, displayed_orders
from lad_eval.tasks.request import Permutation

Requirement = Literal["log_probs", "attention", "replies"]
Results: TypeAlias = Evidence | Replies
M = TypeVar("M", bound="Method")
V = TypeVar("V")


@dataclass(frozen=True)
class Answers:
    """A method's answers to m questions.

    Attributes:
        log_proba: Float[m, N] of the displayed positions; None for a method that gives no probabilities.
        position: Int[m], the answer, 0-based; -1 where a reply names none.
        passes: Float[m], decoder passes that an answer would cost if the method were run alone; NaN: unknown.
        repetitions: Int[R, m], the answers of each of several repetitions, `position` the first; None for a method that has none.
    """

    log_proba: Floats | None
    position: Ints
    passes: Floats
    repetitions: Ints | None = None


class NotCalibratedError(UserError):
    """A method was used before it was calibrated."""


class MethodWarning(UserWarning):
    """A method can answer, but not as it is meant to; the text says why."""


class Method(ABC):
    """Decides answers from evidence.

    A subclass declares its parameters by the annotations of a keyword-only constructor that stores them untouched, see
    `lad_eval.parameters`, and writes `_scores` and, if it calibrates, `_calibrate`. What it learns goes into attributes whose
    names end in `_`: arrays, numbers or strings.

    Attributes:
        name: its name in tables and on the command line.
        needs: the evidence it reads; "attention" is refused when missing, never replaced.
        calibrates: whether `calibrate` must come before the first answer.
        orders: "cyclic" if an answer needs the evidence of all N cyclic shifts of the displayed order, "random" that of K random
            orders, "identity" if it needs the request's own pass only.
        condition: under which the model must have been run; evidence does not record it, the caller must know. A name may join
            more to that of the class.
        parameters: name -> allowed values, as the constructor declares them.
        renamed: today's name of a parameter by the name that it had before, which names and files may still use.
        n_candidates_: N of the calibration (after `calibrate`).
        n_layers_: L of the calibration; 0 for a method that reads no attention.
        calibration_ids_: Str[samples], the samples calibrated on, sorted.
    """

    name: ClassVar[str]
    needs: frozenset[Requirement] = frozenset({"log_probs"})
    calibrates: bool = False
    orders: Orders = "identity"
    condition: Condition = PLAIN
    parameters: ClassVar[Mapping[str, Parameter]] = {}
    renamed: ClassVar[Mapping[str, str]] = {}

    n_candidates_: int
    n_layers_: int
    calibration_ids_: npt.NDArray[np.str_]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.parameters = {} if cls.__init__ is object.__init__ else declared_by(cls.__init__, cls.parameters)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"

    @classmethod
    def current_names(cls, params: Mapping[str, V]) -> dict[str, V]:
        """Values of parameters by today's names.

        Raises:
            ParameterError: one is given under both names.
        """
        for before, now in cls.renamed.items():
            if before in params and now in params:
                raise ParameterError(f"{before} and {now} of {cls.name} are one parameter; give {now} only.")
        return {cls.renamed.get(name, name): value for name, value in params.items()}

    def get_params(self) -> dict[str, Any]:
        """Parameters as they were given."""
        return {name: getattr(self, name) for name in self.parameters}

    def set_params(self: M, **params: Any) -> M:
        """Changes parameters and forgets the calibration, since what was learned may depend on them.

        Raises:
            ParameterError: the method has no such parameter.
        """
        check_names(self.name, params, self.parameters)
        for name, value in params.items():
            setattr(self, name, value)
        for name in self.learned_state():
            delattr(self, name)
        return self

    def check(self) -> None:
        """Checks the parameters' values.

        Raises:
            ParameterError: a parameter cannot have its value.
        """
        check_values(self.name, self.parameters, vars(self))

    @property
    def is_calibrated(self) -> bool:
        """Whether it can answer now: it was calibrated, or needs no calibration."""
        return not self.calibrates or "calibration_ids_" in vars(self)

    def learned_state(self) -> dict[str, Any]:
        """What `calibrate` learned, by attribute name."""
        return {name: value for name, value in vars(self).items() if name.endswith("_") and not name.startswith("_")}

    def calibrate(self: M, evidence: Evidence) -> M:
        """Learns from calibration samples, each seen under its N cyclic shifts; nothing to do if `calibrates` is false.

        Args:
            evidence: all rows are used, whatever their split; pass `evidence.calibration`.

        Raises:
            EvidenceError: the rows are none, lack attention, or a sample's answer was not seen once at every position.
            ParameterError: a parameter cannot have its value.
        """
        self.check()
        if not self.calibrates:
            return self
        self._check_rows(evidence)
        calibration.check_design(evidence)
        self._calibrate(evidence)
        self.n_candidates_ = evidence.n_candidates
        self.n_layers_ = self._attention(evidence).shape[1] if "attention" in self.needs else 0
        self.calibration_ids_ = np.unique(evidence.sample_id)
        return self

    def predict_log_proba(self, evidence: Evidence) -> Floats:
        """Normalised log-probabilities Float[n, N] of the displayed positions, one row per row of evidence.

        A method that has only a score gives the score's log-softmax.

        Raises:
            NotCalibratedError: it calibrates and was not calibrated.
            EvidenceError: the rows are none, lack what the method needs, differ in N or L from the calibration, or hold a
                sample that was calibrated on.
            ParameterError: a parameter cannot have its value.
        """
        self.check()
        if not self.is_calibrated:
            raise NotCalibratedError(f"{self.name} is not calibrated: call calibrate(evidence.calibration) first.")
        self._check_rows(evidence)
        if self.calibrates:
            self._check_fits_calibration(evidence)
        return log_softmax(self._scores(evidence))

    def predict(self, evidence: Evidence) -> Ints:
        """The answers, Int[n]: 0-based displayed positions; of equal candidates the first. Errors as `predict_log_proba`."""
        answers: Ints = self.predict_log_proba(evidence).argmax(axis=1).astype(np.int64)
        return answers

    def save(self, path: str | Path) -> None:
        """Writes parameters and learned state to one safetensors file.

        Raises:
            UserError: the file cannot be written.
        """
        save_state(Path(path), type(self).__name__, self.get_params(), self.learned_state())

    @classmethod
    def load(cls: type[M], path: str | Path) -> M:
        """The method that `save` wrote, ready to answer if it was calibrated.

        Raises:
            UserError: the file cannot be read or holds another method.
        """
        params, learned = load_state(Path(path), cls.__name__)
        method = cls().set_params(**cls.current_names(params))
        method.check()
        for name, value in learned.items():
            setattr(method, name, value)
        return method

    @property
    def learner(self) -> Method:
        """What `calibrate` teaches and `save` writes: this method, or the decision that it makes of each displayed order."""
        return self

    def with_learner(self, learner: Method) -> Method:
        """The method with what another has learned in place of its own."""
        return learner

    @property
    def decoding(self) -> Decoding | None:
        """How the replies that it reads must have been generated; None for a method that decides from evidence."""
        return None

    @property
    def most_orders(self) -> int | None:
        """How many of the displayed orders that were run it uses; None: all."""
        return None

    def displayed_orders(self, order: Permutation) -> tuple[Permutation, ...]:
        """The displayed orders of a sample's images that an answer to one of them rests on, this one first."""
        return displayed_orders(self.orders, order)[: self.most_orders]

    def layer_shares(self, evidence: Evidence) -> Floats | None:
        """Float[L]: share of the rows in which it reads each decoder layer; None for a method that chooses no layers."""
        return None

    def decide(self, results: Results, index: Ints) -> Answers:
        """Answers to m questions; the one call behind every run, whatever the method reads.

        Args:
            results: evidence or replies of every request that the questions rest on.
            index: Int[m, V], the rows of each question's displayed orders, the one that is answered first.

        Raises:
            EvidenceError: the results lack what the method needs.
            NotCalibratedError: it calibrates and was not calibrated.
        """
        log_proba = self.predict_log_proba(self._evidence(results))[index[:, 0]]
        return Answers(log_proba, log_proba.argmax(axis=1).astype(np.int64), passes_of(results, index))

    def _evidence(self, results: Results) -> Evidence:
        if not isinstance(results, Evidence):
            raise EvidenceError(f"{self.name} decides from evidence, and was given replies.")
        return results

    @abstractmethod
    def _scores(self, evidence: Evidence) -> Floats:
        """Finite scores Float[n, N]; the greatest is the answer."""

    def _calibrate(self, evidence: Evidence) -> None:
        """Learns from rows that passed the common checks; to be written where `calibrates` is true."""
        raise NotImplementedError

    def _attention(self, evidence: Evidence) -> Floats:
        """Float[n, L, N] of the span that the method reads: parameter `span` if it has one, else the images' own tokens."""
        span = getattr(self, "span", "image")
        attention = evidence.attention_delimited if span == "delimited" else evidence.attention
        if attention is None:
            raise EvidenceError(
                f"{self.name} needs attention (span {span!r}) and this evidence has none; collect it with attention, "
                "or use a method that reads log_probs only."
            )
        return attention

    def _check_rows(self, evidence: Evidence) -> None:
        if not len(evidence):
            raise EvidenceError(f"{self.name} was given no rows of evidence.")
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


def passes_of(results: Results, index: Ints) -> Floats:
    """Float[m]: decoder passes of all rows behind each question."""
    spent = np.where(results.forward_passes == UNKNOWN_PASSES, np.nan, results.forward_passes)
    total: Floats = spent[index].sum(axis=1)
    return total
