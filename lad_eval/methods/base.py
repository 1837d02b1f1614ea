"""What every method is: its parameters, what it must be given, and the one call that decides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import numpy as np

from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence.replies import UNKNOWN_PASSES, Decoding, Replies
from lad_eval.evidence.table import Evidence, Floats, Ints
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
    """Decides answers to questions: `decide`, after `calibrate` where `calibrates` is true.

    A subclass declares its parameters by the annotations of a keyword-only constructor that stores them untouched, see
    `lad_eval.parameters`. One that scores rows of evidence derives from `EvidenceMethod`, one that combines several displayed
    orders from `OverOrders`, one that reads replies from `ReplyMethod`. What it learns goes into attributes whose names end in
    `_`: arrays, numbers or strings.

    Attributes:
        name: its name in tables and on the command line.
        orders: "cyclic" if an answer needs the evidence of all N cyclic shifts of the displayed order, "random" that of K random
            orders, "identity" if it needs the request's own pass only.
        condition: under which the model must have been run; evidence does not record it, the caller must know. A name may join
            more to that of the class.
        parameters: name -> allowed values, as the constructor declares them.
        renamed: today's name of a parameter by the name that it had before, which names and files may still use.
    """

    name: ClassVar[str]
    orders: Orders = "identity"
    condition: Condition = PLAIN
    parameters: ClassVar[Mapping[str, Parameter]] = {}
    renamed: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.parameters = {} if cls.__init__ is object.__init__ else declared_by(cls.__init__, cls.parameters)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"

    @property
    @abstractmethod
    def needs(self) -> frozenset[Requirement]:
        """What it reads; "attention" is refused when missing, never replaced."""

    @property
    def calibrates(self) -> bool:
        """Whether `calibrate` must come before the first answer."""
        return False

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
        return True

    def learned_state(self) -> dict[str, Any]:
        """What `calibrate` learned, by attribute name."""
        return {name: value for name, value in vars(self).items() if name.endswith("_") and not name.startswith("_")}

    def calibrate(self: M, evidence: Evidence) -> M:
        """Learns from calibration samples, each seen under its N cyclic shifts; a method with `calibrates` false learns nothing.

        Args:
            evidence: all rows are used, whatever their split; pass `evidence.calibration`.

        Raises:
            EvidenceError: the rows are none, lack attention, or a sample's answer was not seen once at every position.
            ParameterError: a parameter cannot have its value.
        """
        self.check()
        return self

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
        if learned and not method._has_learned():
            raise UserError(f"{path} does not hold all that {cls.__name__} learns, or is damaged; save one with Method.save.")
        return method

    def _has_learned(self) -> bool:
        """Whether everything that it learns is there, in its shape; read from a file, anything may be."""
        return True

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

    @abstractmethod
    def decide(self, results: Results, index: Ints) -> Answers:
        """Answers to m questions; the one call behind every run, whatever the method reads.

        Args:
            results: evidence or replies of every request that the questions rest on.
            index: Int[m, V], the rows of each question's displayed orders, the one that is answered first.

        Raises:
            EvidenceError: the results lack what the method needs.
            NotCalibratedError: it calibrates and was not calibrated.
        """


def evidence_of(results: Results, method: Method) -> Evidence:
    """The results, where they are evidence.

    Raises:
        EvidenceError: they are replies.
    """
    if not isinstance(results, Evidence):
        raise EvidenceError(f"{method.name} decides from evidence, and was given replies.")
    return results


def passes_of(results: Results, index: Ints) -> Floats:
    """Float[m]: decoder passes of all rows behind each question."""
    spent = np.where(results.forward_passes == UNKNOWN_PASSES, np.nan, results.forward_passes)
    total: Floats = spent[index].sum(axis=1)
    return total
