"""What the harness asks of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from lad_eval.attention.interventions import Intervention
from lad_eval.errors import DataError, UserError
from lad_eval.evidence.replies import Decoding, Reply
from lad_eval.evidence.table import Evidence
from lad_eval.tasks.request import Request

BatchSize = int | Literal["auto"]
ImagePreparation = Literal["protocol", "native", "pad"]
"""How images reach a model: squashed to the protocol's size, as they are, or padded to a square."""


Item = TypeVar("Item")


class Repeated(Generic[Item]):
    """What a function yields, yielded anew whenever it is walked through, so that nothing of it must be held."""

    def __init__(self, walk: Callable[[], Iterator[Item]]) -> None:
        self._walk = walk

    def __iter__(self) -> Iterator[Item]:
        return self._walk()


def by_identifiers(requests: Sequence[Request]) -> list[list[Request]]:
    """The requests in groups of one set of identifiers each, which is what one call of a model takes."""
    groups: dict[tuple[str, ...], list[Request]] = {}
    for request in requests:
        groups.setdefault(request.identifiers, []).append(request)
    return list(groups.values())


def check_batch_size(size: int | str) -> BatchSize:
    """A positive number, or "auto".

    Raises:
        UserError: it is neither.
    """
    if size == "auto":
        return "auto"
    if isinstance(size, str) and size.isdecimal():
        size = int(size)
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    raise UserError(f"The batch size must be a positive whole number or 'auto', not {size!r}.")


def check_not_calibrated_on(intervention: Intervention | None, requests: Sequence[Request]) -> None:
    """Refuses to evaluate what an intervention learned from; requests of the calibration split are not evaluated.

    Raises:
        EvidenceError: a test request's sample or picture was calibrated on.
    """
    if intervention is None:
        return
    evaluated = [request for request in requests if request.split == "test"]
    pictures = [image.digest for request in evaluated for image in request.images]
    intervention.check_disjoint([request.sample_id for request in evaluated], pictures)


class VLM(Protocol):
    """A vision-language model that can be looked at.

    Attributes:
        name: as the user gave it.
        fingerprint: JSON-serialisable facts that determine its evidence: weights (revision or file hashes), dtype, attention
            implementation, image preparation, chat template, library versions. Not the device, not the batch size.
    """

    name: str

    @property
    def fingerprint(self) -> Mapping[str, Any]: ...

    def evidence(self, requests: Sequence[Request]) -> Evidence:
        """One row a request, in their order; all requests have the same number of candidates.

        The model splits them into batches that fit in memory.

        Raises:
            DataError: an image cannot be read.
            UnsupportedModelError: a decoder layer gave no attention row, or the images' token spans cannot be found.
        """
        ...

    def evidence_batches(self, requests: Sequence[Request]) -> Iterator[Evidence]:
        """The same rows, batch after batch as each is done, in an order of the model's own; `key` says which is which.

        What has been yielded can be stored, so that a killed run loses at most the batch in flight.
        """
        ...

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 16) -> list[str]:
        """Greedy free text, one reply a request, without special tokens."""
        ...


@runtime_checkable
class Changeable(Protocol):
    """A model that can be asked under an intervention."""

    def under(self, intervention: Intervention | None) -> AbstractContextManager[None]:
        """While open the model is asked under the intervention, and its `fingerprint` says so; None leaves it as it is.

        Contexts nest: the one opened first is the first in written order.

        Raises:
            UnsupportedModelError: its attention cannot be changed in this way; told at the latest when it is asked.
        """


@runtime_checkable
class Calibratable(Protocol):
    """A model that interventions can be calibrated on."""

    def calibrated(self, intervention: Intervention, requests: Sequence[Request]) -> Intervention:
        """The intervention with what it learns from the unchanged model's passes over calibration requests.

        With what it learned it keeps `calibration_origin` of the model and the requests.

        Raises:
            UserError: a request cannot be put to the model, or what was learned is not finite.
            UnsupportedModelError: the model does not have what the intervention learns from.
        """


def calibration_origin(fingerprint: Mapping[str, Any], requests: Sequence[Request]) -> dict[str, Any]:
    """What determines what an intervention learns, beside its parameters: the unchanged model and the requests."""
    keys = hashlib.sha256("\n".join(sorted(request.key for request in requests)).encode()).hexdigest()[:32]
    return {"model": dict(fingerprint), "requests": keys}


@runtime_checkable
class Writer(Protocol):
    """A model that can write replies in more ways than greedily, and says what they cost."""

    def reply_batches(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[list[Reply]]:
        """Replies, each key once, batch after batch, in an order of the model's own."""


@dataclass(frozen=True)
class PromptFault:
    """Why a sample cannot be put to a model.

    Attributes:
        sample_id: of the sample.
        problem: what is wrong and what to do about it, one sentence that goes on from the sample's name.
    """

    sample_id: str
    problem: str

    def __str__(self) -> str:
        return f"Sample {self.sample_id}: {self.problem}"


@dataclass(frozen=True)
class PromptReport:
    """What a check of prompts found.

    Attributes:
        faults: in the order of the requests.
        longest: tokens of the longest prompt whose text is sound, as far as they were counted; 0 where nothing was.
        context: tokens that the model takes; None where nothing says it.
    """

    faults: tuple[PromptFault, ...] = ()
    longest: int = 0
    context: int | None = None


def refuse(faults: Sequence[PromptFault]) -> None:
    """Raises the first of the faults, if there is one.

    Raises:
        DataError: there is one.
    """
    if not faults:
        return
    samples = len({fault.sample_id for fault in faults})
    others = f" ({samples - 1} more sample{'s' if samples > 2 else ''} likewise; `lad-eval validate` with --model names all.)"
    raise DataError(f"{faults[0]}{others if samples > 1 else ''}")


@runtime_checkable
class ReadsPrompts(Protocol):
    """What can say of requests, without running a model, whether it could put them to the model."""

    name: str

    def check_prompts(self, requests: Sequence[Request], *, reply_tokens: int = 0, exact: int | None = 1) -> PromptReport:
        """Faults of the requests' prompts.

        Args:
            requests: to check.
            reply_tokens: that a reply to each may have.
            exact: how many of the longest are prepared whole, pictures included, where nothing less says how long they are;
                None: all. 0 leaves pictures alone as far as possible.
        """
        ...
