"""Combines answers under several displayed orders: averages, and a vote that needs answers only."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np

from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence.replies import UNPARSABLE, Decoding, Replies
from lad_eval.evidence.table import Evidence, Floats, Ints
from lad_eval.methods.base import Answers, Method, Requirement, Results, evidence_of, passes_of
from lad_eval.methods.evidence_method import EvidenceMethod, most_probable
from lad_eval.parameters import Count, check_names
from lad_eval.tasks.plan import RANDOM_ORDERS
from lad_eval.tasks.probes import Probe
from lad_eval.tasks.request import Permutation


class Vanilla(EvidenceMethod):
    """The candidate with the highest log-probability; no debiasing."""

    name = "vanilla"

    def _scores(self, evidence: Evidence) -> Floats:
        return evidence.log_probs


class OrdersMethod(Method):
    """Answers a question from its evidence under several displayed orders."""

    @abstractmethod
    def predict_over_orders(self, evidence: Evidence, index: Ints) -> Floats:
        """Log-probabilities Float[m, N] of m questions, in the displayed order of each one's first order.

        Args:
            evidence: rows of all orders.
            index: Int[m, V], the rows of each question's orders, the displayed order itself first.

        Raises:
            EvidenceError: there are no rows, or they lack what the method needs.
            NotCalibratedError: it calibrates and was not calibrated.
            ParameterError: a parameter cannot have its value.
        """

    def predict_log_proba(self, evidence: Evidence) -> Floats:
        """Log-probabilities Float[n, N] of the displayed positions, each row answered from all its orders.

        Args:
            evidence: for every row it must hold the sample's other orders that the answer is computed from.

        Raises:
            EvidenceError: it lacks some, or as `predict_over_orders`.
            NotCalibratedError: it calibrates and was not calibrated.
            ParameterError: a parameter cannot have its value.
        """
        return self.predict_over_orders(evidence, self._orders_of_rows(evidence))

    def predict(self, evidence: Evidence) -> Ints:
        """The answers, Int[n]: 0-based displayed positions; the first of equal candidates. Errors as `predict_log_proba`."""
        return most_probable(self.predict_log_proba(evidence))

    def decide(self, results: Results, index: Ints) -> Answers:
        log_proba = self.predict_over_orders(evidence_of(results, self), index)
        return Answers(log_proba, most_probable(log_proba), passes_of(results, index))

    def _orders_of_rows(self, evidence: Evidence) -> Ints:
        """Int[n, V]: the rows of every row's orders; the first of equal rows."""
        rows = list(zip(evidence.sample_id.tolist(), evidence.perm.tolist(), strict=True))
        where: dict[tuple[Any, ...], int] = {}
        for row, (sample, order) in enumerate(rows):
            where.setdefault((sample, *order), row)
        rows_of = [
            [where.get((sample, *shown.order)) for shown in self.displayed_orders(Permutation(tuple(order)))]
            for sample, order in rows
        ]
        if lacking := sum(None in of_one for of_one in rows_of):
            cyclic = self.orders == "cyclic"
            wanted = f"all {evidence.n_candidates} cyclic shifts" if cyclic else f"the {self.most_orders} random orders"
            raise EvidenceError(
                f"{self.name} needs {wanted} of every displayed order: {lacking} of {len(evidence)} rows lack some; "
                "collect them, or leave the method out."
            )
        return np.asarray(rows_of, dtype=np.int64)


V = TypeVar("V", bound="OverOrders")


class OverOrders(OrdersMethod):
    """Combines a decision's answers under several displayed orders of a question; by default vanilla's.

    Attributes:
        needs_probabilities: whether it needs more than answers, so that decisions from replies are refused.
    """

    needs_probabilities: ClassVar[bool] = True

    def __init__(self) -> None:
        self._decision: Method = Vanilla()

    def over(self: V, decision: Method) -> V:
        """Lets another method decide each order.

        Raises:
            UserError: the method uses several orders itself, or its answers depend on other rows.
        """
        if decision.transductive:
            raise UserError(f"{self.name} cannot be joined with {decision.name}, whose answers depend on the other questions.")
        if decision.orders != "identity":
            raise UserError(f"{self.name} cannot be joined with {decision.name}: both use several displayed orders.")
        self._decision = decision
        return self

    @property
    def decision(self) -> Method:
        """The method that decides each order; see `over`. Its calibration is that of the whole."""
        return self._decision

    @property
    def needs(self) -> frozenset[Requirement]:
        """Of the decision."""
        return self._decision.needs

    @property
    def probes(self) -> tuple[Probe, ...]:
        return self._decision.probes

    @property
    def calibration_probes(self) -> tuple[Probe, ...]:
        return self._decision.calibration_probes

    @property
    def calibrates(self) -> bool:
        return self._decision.calibrates

    @property
    def is_calibrated(self) -> bool:
        return self._decision.is_calibrated

    def calibrate(self: V, evidence: Evidence) -> V:
        """Calibrates the decision."""
        self.check()
        self._decision.calibrate(evidence)
        return self

    @property
    def learner(self) -> Method:
        return self._decision

    def with_learner(self: V, learner: Method) -> V:
        return self.over(learner)

    @property
    def decoding(self) -> Decoding | None:
        return self._decision.decoding

    def layer_shares(self, evidence: Evidence) -> Floats | None:
        return self._decision.layer_shares(evidence)

    def get_params(self) -> dict[str, Any]:
        """Parameters of this method and of the decision."""
        return {**super().get_params(), **self._decision.get_params()}

    def set_params(self: V, **params: Any) -> V:
        """Changes parameters of this method and of the decision, which drops its calibration.

        Raises:
            ParameterError: neither has such a parameter.
        """
        check_names(self.name, params, {**self.parameters, **self._decision.parameters})
        of_decision = {name: value for name, value in params.items() if name in self._decision.parameters}
        self._decision.set_params(**of_decision)
        return super().set_params(**{name: value for name, value in params.items() if name not in of_decision})

    def predict_over_orders(self, evidence: Evidence, index: Ints) -> Floats:
        self.check()
        log_proba = self._decision.decide(evidence, np.arange(len(evidence))[:, None]).log_proba
        if log_proba is None:
            raise EvidenceError(f"{self.name} combines probabilities, and {self._decision.name} gives none.")
        by_image = np.empty_like(log_proba)
        np.put_along_axis(by_image, evidence.perm, log_proba, axis=1)
        combined = self._combined(by_image[index[:, : self.most_orders]])
        scores = np.take_along_axis(combined, evidence.perm[index[:, 0]], axis=1)
        return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)

    def save(self, path: str | Path) -> None:
        """Writes this method's parameters; with another decision than vanilla, save the decision instead.

        Raises:
            UserError: the file cannot be written, or another method than vanilla decides each order.
        """
        if not isinstance(self._decision, Vanilla):
            raise UserError(f"{self.name} over {self._decision.name} has no state of its own; save its decision.")
        super().save(path)

    @abstractmethod
    def _combined(self, by_image: Floats) -> Floats:
        """Scores Float[m, N] of the images, from log-probabilities Float[m, V, N] of the images under each order."""


class PermutationAverage(OverOrders):
    """Log-probabilities averaged over the N cyclic shifts of the displayed order: N passes, the empirical ceiling.

    Source: arXiv 2605.11591, baseline "permutation averaging". The log-probabilities of every shift are mapped back to images
    and averaged, and each row is answered in its own positions. So the evidence must be closed under cyclic shifts: for every row
    it must hold the other N - 1 shifts of that row's order, of the same sample.
    """

    name = "permutation-average"
    orders = "cyclic"

    def _combined(self, by_image: Floats) -> Floats:
        mean: Floats = by_image.mean(axis=1)
        return mean


class RandomAverage(OverOrders):
    """Log-probabilities averaged over K random displayed orders, the shown one among them; K = 16.

    Source: arXiv 2605.11591, baseline "random-K averaging". The same K - 1 permutations of every displayed order; if N! is less
        than
    K, all orders.

    Args:
        k: K, at most the 16 orders that a run evaluates.
    """

    name = "average-random"
    orders = "random"

    def __init__(self, *, k: Annotated[int, Count(1, RANDOM_ORDERS)] = RANDOM_ORDERS) -> None:
        super().__init__()
        self.k = k

    @property
    def most_orders(self) -> int | None:
        return self.k

    def _combined(self, by_image: Floats) -> Floats:
        mean: Floats = by_image.mean(axis=1)
        return mean


class Majority(OverOrders):
    """The image that most of the N cyclic shifts answer; needs answers only, so replies can vote too.

    Among images with equally many votes the one answered in the earliest order wins, the displayed one first and then shift by
    shift. A reply that names no candidate does not vote; without votes there is no answer.
    """

    name = "majority"
    orders = "cyclic"
    needs_probabilities = False

    def decide(self, results: Results, index: Ints) -> Answers:
        if not isinstance(results, Replies):
            return super().decide(results, index)
        each = self._decision.decide(results, np.arange(len(results))[:, None]).position
        perm = results.perm
        image = np.take_along_axis(perm, np.maximum(each, 0)[:, None], axis=1)[:, 0]
        chosen = most_voted(np.where(each == UNPARSABLE, UNPARSABLE, image)[index], results.n_candidates)
        position_of = np.argsort(perm[index[:, 0]], axis=1)
        position = position_of[np.arange(len(chosen)), np.maximum(chosen, 0)]
        return Answers(None, np.where(chosen == UNPARSABLE, UNPARSABLE, position).astype(np.int64), passes_of(results, index))

    def _combined(self, by_image: Floats) -> Floats:
        return votes(by_image.argmax(axis=2).astype(np.int64), by_image.shape[2])


def votes(chosen: Ints, n: int) -> Floats:
    """Float[m, N] scores of the images: the number of votes, plus less than one half that is larger the earlier the first vote.

    Args:
        chosen: Int[m, V], the image that each order answers; -1 for none.
        n: N.
    """
    voted = chosen[:, :, None] == np.arange(n)
    orders = chosen.shape[1]
    first = np.where(voted.any(axis=1), voted.argmax(axis=1), orders)
    scores: Floats = voted.sum(axis=1) + 0.5 * (1 - first / orders)
    return scores


def most_voted(chosen: Ints, n: int) -> Ints:
    """Int[m]: the most frequent answer of each row of Int[m, V], the first of equal ones; UNPARSABLE if there is none."""
    winner: Ints = votes(chosen, n).argmax(axis=1).astype(np.int64)
    return np.where((chosen != UNPARSABLE).any(axis=1), winner, UNPARSABLE)
