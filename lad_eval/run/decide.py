"""From evidence to answers: calibrate a method, let it see what it needs, keep the answers to the evaluated requests."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lad_eval.evidence.replies import UNKNOWN_PASSES, Replies
from lad_eval.evidence.table import Evidence, Floats, Ints
from lad_eval.methods import Generate, Method, OverViews, PriDeOriginal
from lad_eval.methods.replying import NO_ANSWER, most_voted
from lad_eval.run.folder import AGAIN, PLAN, ResultsError, read_json, write_json
from lad_eval.tasks.plan import Plan

_RUN = "run"
_Key = Annotated[str, Field(min_length=1)]
_Keys = tuple[_Key, ...]
_Index = Annotated[int, Field(ge=0, le=2**31, strict=True)]


class _Document(BaseModel):
    """What the file may hold."""

    model_config = ConfigDict(extra="forbid")

    evaluated: Annotated[_Keys, Field(min_length=1)]
    permutation_index: tuple[_Index, ...]
    cyclic: tuple[Annotated[_Keys, Field(min_length=1)], ...]
    calibration: _Keys
    random: tuple[Annotated[_Keys, Field(min_length=1)], ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> _Document:
        n = len(self.evaluated)
        views = [keys for keys in (self.cyclic, self.random) if keys]
        same = all(len(keys) == n and len({len(of_one) for of_one in keys}) == 1 for keys in views)
        if len(self.permutation_index) != n or not same:
            raise ValueError("its lists do not fit each other")
        return self


@dataclass(frozen=True)
class Asked:
    """Keys of the asked requests by their purpose; fields as in `tasks.plan.Plan`."""

    evaluated: tuple[str, ...]
    permutation_index: tuple[int, ...]
    cyclic: tuple[tuple[str, ...], ...]
    calibration: tuple[str, ...]
    random: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, plan: Plan) -> Asked:
        return cls(plan.evaluated, plan.permutation_index, plan.cyclic, plan.calibration, plan.random)

    @classmethod
    def read(cls, folder: Path, run: str | None = None) -> Asked:
        """What `write` put into a folder.

        Args:
            folder: of the run, or of a condition in it.
            run: digest of the run's spec, which the file must name too; None: of whatever run it is.

        Raises:
            ResultsError: it is missing or damaged, or is of another run.
        """
        path = folder / PLAN
        document = read_json(path, "which answers belong to what")
        if run is not None and document.get(_RUN, run) != run:
            raise ResultsError(f"{path} is of another run. {AGAIN}")
        try:
            read = _Document.model_validate({key: value for key, value in document.items() if key != _RUN})
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise ResultsError(f"{path} is damaged at {where or 'its lists, whose lengths differ'}. {AGAIN}") from error
        return cls(read.evaluated, read.permutation_index, read.cyclic, read.calibration, read.random)

    def write(self, folder: Path, run: str) -> None:
        """Writes the keys as JSON, with the digest of the run's spec."""
        write_json(folder / PLAN, {_RUN: run, **asdict(self)})

    def seen_by(self, method: Method) -> list[str]:
        """Keys of the test requests that a method's answers rest on, each once."""
        if method.views == "identity":
            return list(self.evaluated)
        return list(dict.fromkeys(key for keys in self.views_of(method) for key in keys))

    def views_of(self, method: Method) -> tuple[tuple[str, ...], ...]:
        """For every evaluated key the keys of the displayed orders that a method answers it from, itself first.

        Raises:
            ResultsError: they were not asked.
        """
        if method.views == "identity":
            return tuple((key,) for key in self.evaluated)
        asked = self.cyclic if method.views == "cyclic" else self.random
        if not asked:
            what = "every cyclic shift" if method.views == "cyclic" else "random orders"
            raise ResultsError(f"{method.name} needs {what}, and this run has not asked them; run again with it among --methods.")
        most = method.most_orders if isinstance(method, OverViews) else None
        return tuple(keys[:most] for keys in asked)

    def calibration_keys(self, method: Method) -> list[str]:
        """Keys of the requests that a method learns from.

        Raises:
            ResultsError: they were not asked.
        """
        if not self.calibration:
            raise ResultsError(
                f"{method.name} needs calibration, and this run has asked none; run again with it among --methods."
            )
        return list(self.calibration)

    def passes_of(self, method: Method, answers: Evidence | Replies) -> Floats:
        """Decoder passes that each evaluated request would cost if the method were run alone, Float[evaluated]; NaN: unknown."""
        passes = np.where(answers.forward_passes == UNKNOWN_PASSES, np.nan, answers.forward_passes)
        spent = dict(zip(answers.key.tolist(), passes.tolist(), strict=True))
        return np.asarray([sum(spent[key] for key in keys) for keys in self.views_of(method)], dtype=np.float64)


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
