"""From evidence to answers: calibrate a method, let it see what it needs, keep the answers to the evaluated requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lad_eval.evidence import Evidence, Floats, Ints
from lad_eval.methods import Generate, Method, OverViews, PriDeOriginal
from lad_eval.methods.replying import NO_ANSWER, most_voted
from lad_eval.replies import Replies
from lad_eval.run.asked import Asked


class Rows(Protocol):
    """What evidence and replies say of each request alike; columns as in `Evidence`."""

    @property
    def key(self) -> npt.NDArray[np.str_]: ...
    @property
    def sample_id(self) -> npt.NDArray[np.str_]: ...
    @property
    def perm(self) -> Ints: ...
    @property
    def gold_position(self) -> Ints: ...


@dataclass(frozen=True)
class Decision:
    """A method's answers to the evaluated requests, n of them.

    Attributes:
        log_proba: Float[n, N] of the displayed positions; None for a method that gives no probabilities.
        position: Int[n], the answer, 0-based; -1 where a reply names none.
        passes: Float[n], decoder passes that the answer would cost if the method were run alone.
        calibration_passes: decoder passes of the calibration; 0 for a method that does not calibrate.
        rows: of the evaluated requests.
        draws: Int[D, n], the answers of each of several draws, `position` the first; None for a method that draws nothing. The
            figures are means over them.
    """

    log_proba: Floats | None
    position: Ints
    passes: Floats
    calibration_passes: int
    rows: Rows
    draws: Ints | None = None


def decide(evidence: Evidence, asked: Asked, method: Method) -> Decision:
    """The answers of a method that decides from evidence.

    Raises:
        EvidenceError: evidence is missing or not what the method needs.
        ResultsError: the run did not ask what the method needs.
    """
    calibration_passes = 0
    if method.calibrates:
        learned_from = evidence.select_keys(asked.calibration_keys(method))
        method.calibrate(learned_from)
        calibration_passes = int(learned_from.forward_passes.sum())
    if isinstance(method, PriDeOriginal):
        return _drawn(evidence, asked, method)
    if isinstance(method, OverViews):
        seen = evidence.select_keys(asked.seen_by(method))
        log_proba = method.predict_over_views(seen, index_of(seen, asked, method))
    else:
        # A method of several views that is no OverViews finds the views of each row by itself, and answers all rows.
        keys = asked.seen_by(method)
        row = {key: i for i, key in enumerate(keys)}
        log_proba = method.predict_log_proba(evidence.select_keys(keys))[[row[key] for key in asked.evaluated]]
    position = log_proba.argmax(axis=1).astype(np.int64)
    rows = evidence.select_keys(asked.evaluated)
    return Decision(log_proba, position, asked.passes_of(method, evidence), calibration_passes, rows)


def _drawn(evidence: Evidence, asked: Asked, method: PriDeOriginal) -> Decision:
    """The answers of every draw; a question costs its own pass, or that of all its views where its sample is drawn."""
    seen = evidence.select_keys(asked.seen_by(method))
    index = index_of(seen, asked, method)
    log_proba = method.predict_over_views(seen, index)
    found = [method.drawn(seen, index, draw) for draw in range(method.draws)]
    draws = np.stack([scores.argmax(axis=1) for scores, _ in found]).astype(np.int64)
    spent = seen.forward_passes[index]
    passes = np.mean([np.where(drawn, spent.sum(axis=1), spent[:, 0]) for _, drawn in found], axis=0)
    return Decision(log_proba, draws[0], passes, 0, evidence.select_keys(asked.evaluated), draws)


def decide_from_replies(replies: Replies, asked: Asked, method: Method) -> Decision:
    """The answers of a method that reads replies, or of a majority of such answers over several displayed orders.

    Raises:
        EvidenceError: replies are missing.
        ResultsError: the run did not ask what the method needs.
    """
    rows = replies.select_keys(asked.evaluated)
    reading = method.decision if isinstance(method, OverViews) else method
    assert isinstance(reading, Generate)
    seen = replies.select_keys(asked.seen_by(method))
    answers = reading.answers(seen)
    if isinstance(method, OverViews):
        index = index_of(seen, asked, method)
        image = np.take_along_axis(seen.perm, np.maximum(answers, 0)[:, None], axis=1)[:, 0]
        chosen = most_voted(np.where(answers == NO_ANSWER, NO_ANSWER, image)[index], seen.n_candidates)
        place = np.argsort(rows.perm, axis=1)[np.arange(len(chosen)), np.maximum(chosen, 0)]
        answers = np.where(chosen == NO_ANSWER, NO_ANSWER, place)
    return Decision(None, answers.astype(np.int64), asked.passes_of(method, replies), 0, rows)


def index_of(seen: Rows, asked: Asked, method: Method) -> Ints:
    """Int[evaluated, V]: the rows of `seen` from which a method answers each evaluated request."""
    where = {key: row for row, key in enumerate(seen.key.tolist())}
    return np.asarray([[where[key] for key in keys] for keys in asked.views_of(method)], dtype=np.int64)
