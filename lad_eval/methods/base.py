"""The base class of methods: parameters, what a method reads, and the call that decides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
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
from lad_eval.tasks.probes import Probe
from lad_eval.tasks.request import Permutation

Requirement = Literal["log_probs", "attention", "token_map", "replies"]
Results: TypeAlias = Evidence | Replies
M = TypeVar("M", bound="Method")
V = TypeVar("V")


@dataclass(frozen=True)
class Answers:
    """A method's answers to m questions.

    Attributes:
        log_proba: Float[m, N] of the displayed positions; None for a method that gives no probabilities.
        position: Int[m], the answer, 0-based; -1 where a reply names none.
        passes: Float[m], decoder passes that an answer costs if only this method is run; NaN: unknown.
        repetitions: Int[R, m], the answers of each of several repetitions, `position` the first; None for a method that has none.
        draws: Int[R, m], what each of the replies drawn to a question answers by itself; None for a method that draws none.
    """

    log_proba: Floats | None
    position: Ints
    passes: Floats
    repetitions: Ints | None = None
    draws: Ints | None = None


class NotCalibratedError(UserError):
    """A method was used before it was calibrated."""


class MethodWarning(UserWarning):
    """A method can answer, but not as intended; the text says why."""


class Method(ABC):
    """Answers questions: `decide`, after `calibrate` if `calibrates` is true.

    A subclass declares its parameters by the annotations of a keyword-only constructor that stores them unchanged, see
    `lad_eval.parameters`. One that scores rows of evidence derives from `EvidenceMethod`, one that combines several displayed
    orders from `OverOrders`, one that reads replies from `ReplyMethod`. Learned state is in attributes whose names end in
    `_`: arrays, numbers or strings.

    Attributes:
        name: its name in tables and on the command line.
        orders: "cyclic" if an answer needs the results of all N cyclic shifts of the displayed order, "random" if of K random
            orders, "identity" if it needs the request itself only.
        condition: that the model must have been run under; evidence does not record it, so the caller must know. A name may
            add to that of the class.
        parameters: name -> allowed values, as the constructor declares them.
        reads_right_images: whether `calibrate` reads the right images of its samples.
        renamed: current name of a parameter by its former name, which names of methods and files may still use.
        moves_letters: whether its other displayed orders must give every option another letter, so that orders of the images
            alone do not serve.
        transductive: whether an answer depends on the other evaluated rows: they must be decided together, and with other samples
            the same question may be answered otherwise.
    """

    name: ClassVar[str]
    orders: Orders = "identity"
    condition: Condition = PLAIN
    parameters: ClassVar[Mapping[str, Parameter]] = {}
    reads_right_images: ClassVar[bool] = False
    renamed: ClassVar[Mapping[str, str]] = {}
    moves_letters: ClassVar[bool] = False
    transductive: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.parameters = {} if cls.__init__ is object.__init__ else declared_by(cls.__init__, cls.parameters)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_params().items())})"

    @property
    @abstractmethod
    def needs(self) -> frozenset[Requirement]:
        """What it reads; missing "attention" is an error and never replaced."""

    @property
    def probes(self) -> tuple[Probe, ...]:
        """The probes of every row that it reads, see `Evidence.probes`; a missing one is an error and never replaced."""
        return ()

    @property
    def calibration_probes(self) -> tuple[Probe, ...]:
        """The probes of calibration rows that `calibrate` reads."""
        return ()

    @property
    def calibrates(self) -> bool:
        """Whether `calibrate` must be called before the first answer."""
        return False

    @classmethod
    def current_names(cls, params: Mapping[str, V]) -> dict[str, V]:
        """Values of parameters by their current names.

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
        """Changes parameters and drops the calibration, since the learned state may depend on them.

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
        """Whether it can answer: it was calibrated, or needs no calibration."""
        return True

    def learned_state(self) -> dict[str, Any]:
        """The learned state, by attribute name."""
        return {name: value for name, value in vars(self).items() if name.endswith("_") and not name.startswith("_")}

    def calibrate(self: M, evidence: Evidence) -> M:
        """Learns from calibration samples, each shown under its N cyclic shifts; a method with `calibrates` false learns nothing.

        Args:
            evidence: all rows are used, whatever their split; pass `evidence.calibration`.

        Raises:
            EvidenceError: there are no rows, they lack attention, or a sample's answer is not once at every position.
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
        """Whether the learned state is complete and has the right shapes; a file may hold anything."""
        return True

    @property
    def learner(self) -> Method:
        """The method that `calibrate` trains and `save` writes: this one, or the decision that it applies to each order."""
        return self

    def with_learner(self, learner: Method) -> Method:
        """The method with the learned state of another."""
        return learner

    @property
    def decoding(self) -> Decoding | None:
        """How the replies that it reads must have been generated; None for a method that decides from evidence."""
        return None

    @property
    def most_orders(self) -> int | None:
        """Number of the displayed orders that it uses; None: all."""
        return None

    def displayed_orders(self, order: Permutation) -> tuple[Permutation, ...]:
        """The displayed orders of a sample's images that the answer to `order` is computed from, itself first."""
        return displayed_orders(self.orders, order)[: self.most_orders]

    def layer_shares(self, evidence: Evidence) -> Floats | None:
        """Float[L]: share of the rows in which it reads each decoder layer; None for a method that chooses no layers."""
        return None

    @abstractmethod
    def decide(self, results: Results, index: Ints) -> Answers:
        """Answers to m questions; the one call that every run makes, whatever the method reads.

        Args:
            results: evidence or replies of every request that the answers are computed from.
            index: Int[m, V], the rows of each question's displayed orders, the order to answer first.

        Raises:
            EvidenceError: the results lack what the method needs.
            NotCalibratedError: it calibrates and was not calibrated.
        """


def evidence_of(results: Results, method: Method) -> Evidence:
    """The results, if they are evidence.

    Raises:
        EvidenceError: they are replies.
    """
    if not isinstance(results, Evidence):
        raise EvidenceError(f"{method.name} decides from evidence, not from replies.")
    return results


def passes_of(results: Results, index: Ints) -> Floats:
    """Float[m]: decoder passes of all rows of each question, and of the probes of its sample.

    A probe that serves one request counts like it; one that serves several is shared by their questions. A probe that samples
    share is not counted here: it belongs to the calibration, see `shared_passes`.
    """
    spent = np.where(results.forward_passes == UNKNOWN_PASSES, np.nan, results.forward_passes)
    total: Floats = spent[index].sum(axis=1)
    for rows in results.probes.values() if isinstance(results, Evidence) else ():
        of_sample = rows.sample_id == results.sample_id
        keys = [set(rows.key[of_one[of_sample[of_one]]].tolist()) for of_one in index]
        passes = dict(zip(rows.key.tolist(), rows.forward_passes.tolist(), strict=True))
        questions = Counter(key for of_one in keys for key in of_one)
        requests: dict[str, set[str]] = defaultdict(set)
        for request, key in zip(results.key.tolist(), rows.key.tolist(), strict=True):
            requests[key].add(request)
        questions = Counter({key: 1 if len(requests[key]) == 1 else count for key, count in questions.items()})
        total += [sum(passes[key] / questions[key] for key in of_one) for of_one in keys]
    return total


def shared_passes(evidence: Evidence) -> int:
    """Decoder passes of the probes that samples share, each once."""
    passes: dict[str, int] = {}
    for rows in evidence.probes.values():
        shared = rows.sample_id != evidence.sample_id
        passes |= dict(zip(rows.key[shared].tolist(), rows.forward_passes[shared].tolist(), strict=True))
    return sum(passes.values())
