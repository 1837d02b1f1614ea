"""Answers under several displayed orders, combined: averages, and a vote that needs answers only."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import numpy as np

from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence.replies import UNPARSABLE, Decoding, Replies
from lad_eval.evidence.table import Evidence, Floats, Ints
from lad_eval.methods.base import Answers, Method, Results, passes_of
from lad_eval.parameters import Count
from lad_eval.tasks.plan import RANDOM_ORDERS
from lad_eval.tasks.request import Permutation


class Vanilla(Method):
    """The candidate with the greatest log-probability; no debiasing."""

    name = "vanilla"

    def _scores(self, evidence: Evidence) -> Floats:
        return evidence.log_probs


V = TypeVar("V", bound="OverOrders")


class OverOrders(Method):
    """Combines what a decision makes of each of several displayed orders of a question; by default the model as it is.

    Attributes:
        decision: decides each order by itself; see `over`. Its calibration is that of the whole.
        needs_probabilities: whether a decision that gives answers only, as one from replies, cannot be combined.
    """

    needs_probabilities: ClassVar[bool] = True
    decision: Method

    def __init__(self) -> None:
        self.decision = Vanilla()

    def over(self: V, decision: Method) -> V:
        """Lets another method decide each order.

        Raises:
            UserError: the method is one over several orders itself.
        """
        if decision.orders != "identity":
            raise UserError(f"{self.name} cannot be joined with {decision.name}: both ask under several displayed orders.")
        self.decision = decision
        self.needs, self.calibrates = decision.needs, decision.calibrates
        return self

    @property
    def learner(self) -> Method:
        return self.decision

    def with_learner(self: V, learner: Method) -> V:
        return self.over(learner)

    @property
    def decoding(self) -> Decoding | None:
        return self.decision.decoding

    def layer_shares(self, evidence: Evidence) -> Floats | None:
        return self.decision.layer_shares(evidence)

    def decide(self, results: Results, index: Ints) -> Answers:
        log_proba = self.predict_over_orders(self._evidence(results), index)
        return Answers(log_proba, log_proba.argmax(axis=1).astype(np.int64), passes_of(results, index))

    def get_params(self) -> dict[str, Any]:
        """Own parameters and the decision's."""
        return {**super().get_params(), **self.decision.get_params()}

    def predict_over_orders(self, evidence: Evidence, index: Ints) -> Floats:
        """Log-probabilities Float[m, N] of m questions, in the displayed order of each one's first order.

        Args:
            evidence: rows of all orders.
            index: Int[m, V], the rows of each question's orders, the displayed order itself first.

        Raises:
            EvidenceError: as `predict_log_proba`.
        """
        self.check()
        log_proba = self.decision.predict_log_proba(evidence)
        by_image = np.empty_like(log_proba)
        np.put_along_axis(by_image, evidence.perm, log_proba, axis=1)
        combined = self._combined(by_image[index[:, : self.most_orders]])
        scores = np.take_along_axis(combined, evidence.perm[index[:, 0]], axis=1)
        return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)

    def save(self, path: str | Path) -> None:
        """As a method over the model as it is; save the decision where there is another.

        Raises:
            UserError: the file cannot be written, or another method decides each order.
        """
        if not isinstance(self.decision, Vanilla):
            raise UserError(f"{self.name} over {self.decision.name} has no state of its own; save its decision.")
        super().save(path)

    def _calibrate(self, evidence: Evidence) -> None:
        self.decision.calibrate(evidence)

    def _scores(self, evidence: Evidence) -> Floats:
        return self.predict_over_orders(evidence, self._orders_of_rows(evidence))

    def _orders_of_rows(self, evidence: Evidence) -> Ints:
        """Int[n, V]: for every row the rows of its orders; of equal rows the first."""
        N = evidence.n_candidates
        orders = evidence.perm.tolist()
        where: dict[tuple[Any, ...], int] = {}
        for row, (sample, order) in enumerate(zip(evidence.sample_id.tolist(), orders, strict=True)):
            where.setdefault((sample, *order), row)
        rows_of = [
            [where.get((sample, *shown)) for shown in self._orders(tuple(order))]
            for sample, order in zip(evidence.sample_id.tolist(), orders, strict=True)
        ]
        if lacking := sum(None in rows for rows in rows_of):
            raise EvidenceError(
                f"{self.name} needs {self._wanted(N)} of every displayed order: {lacking} of {len(evidence)} rows lack some; "
                "collect them, or leave the method out."
            )
        return np.asarray(rows_of, dtype=np.int64)

    @abstractmethod
    def _combined(self, by_image: Floats) -> Floats:
        """Scores Float[m, N] of the images, from log-probabilities Float[m, V, N] of the images under each order."""

    @abstractmethod
    def _orders(self, order: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The orders that a displayed order is answered under, itself first."""

    @abstractmethod
    def _wanted(self, n: int) -> str:
        """The orders in words."""


class Cyclic(OverOrders):
    """Over the N cyclic shifts of the displayed order."""

    orders = "cyclic"

    def _orders(self, order: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [shifted.order for shifted in Permutation(order).cyclic_shifts()]

    def _wanted(self, n: int) -> str:
        return f"all {n} cyclic shifts"


class PermutationAverage(Cyclic):
    """Log-probabilities averaged over the N cyclic shifts of the displayed order: N passes, the empirical ceiling.

    Source: arXiv 2605.11591, baseline "permutation averaging". The log-probabilities of every shift are mapped back to images
    and averaged, and each row is answered in its own positions. So the evidence must be closed under cyclic shifts: with a row
    it holds the other N - 1 shifts of that row's order, of the same sample.
    """

    name = "permutation-average"

    def _combined(self, by_image: Floats) -> Floats:
        mean: Floats = by_image.mean(axis=1)
        return mean


class RandomAverage(OverOrders):
    """Log-probabilities averaged over K random displayed orders, the shown one among them; K = 16.

    Source: arXiv 2605.11591, baseline "random-K averaging". The same K - 1 turns of every displayed order; where N! is less than
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

    def _orders(self, order: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [drawn.order for drawn in Permutation(order).random_orders(self.k)]

    def _wanted(self, n: int) -> str:
        return f"the {self.k} random orders"


class Majority(Cyclic):
    """The image that most of the N cyclic shifts answer; needs answers only, so that replies can vote too.

    Of images with equally many votes the one that is answered in the earliest order wins, the shown one first and then shift by
    shift. A reply that names no candidate does not vote; where none votes there is no answer.
    """

    name = "majority"
    needs_probabilities = False

    def decide(self, results: Results, index: Ints) -> Answers:
        if not isinstance(results, Replies):
            return super().decide(results, index)
        each = self.decision.decide(results, np.arange(len(results))[:, None]).position
        perm = results.perm
        image = np.take_along_axis(perm, np.maximum(each, 0)[:, None], axis=1)[:, 0]
        chosen = most_voted(np.where(each == UNPARSABLE, UNPARSABLE, image)[index], results.n_candidates)
        position_of = np.argsort(perm[index[:, 0]], axis=1)
        position = position_of[np.arange(len(chosen)), np.maximum(chosen, 0)]
        return Answers(None, np.where(chosen == UNPARSABLE, UNPARSABLE, position).astype(np.int64), passes_of(results, index))

    def _combined(self, by_image: Floats) -> Floats:
        return votes(by_image.argmax(axis=2).astype(np.int64), by_image.shape[2])


def votes(chosen: Ints, n: int) -> Floats:
    """Float[m, N] scores of the images: their number of votes, and less than one half more the earlier the first of them.

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
    """Int[m]: of each row of Int[m, V] what most of it says, the first said if several do; UNPARSABLE where nothing is said."""
    winner: Ints = votes(chosen, n).argmax(axis=1).astype(np.int64)
    return np.where((chosen != UNPARSABLE).any(axis=1), winner, UNPARSABLE)
