"""The protocols that models implement."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

from lad_eval.attention.interventions import Intervention
from lad_eval.errors import DataError, UserError
from lad_eval.evidence.replies import Decoding, Reply
from lad_eval.evidence.table import Evidence, Floats, Ints
from lad_eval.methods.base import Requirement
from lad_eval.tasks.request import Request

if TYPE_CHECKING:
    from lad_eval.attention.layout import PromptLayout

BatchSize = int | Literal["auto"]
ImagePreparation = Literal["protocol", "native", "pad"]
"""How images are prepared for a model: resized to the protocol's size, unchanged, or padded to a square."""


REQUESTS_A_CALL = 16
"""Requests of one call of a model that does not divide them into batches itself."""

Item = TypeVar("Item")


class Repeated(Generic[Item]):
    """An iterable that calls a generator function on every iteration, so that its items need not be held in memory."""

    def __init__(self, walk: Callable[[], Iterator[Item]]) -> None:
        self._walk = walk

    def __iter__(self) -> Iterator[Item]:
        return self._walk()


def by_identifiers(requests: Sequence[Request]) -> list[list[Request]]:
    """The requests grouped by identifiers and number of images, which the requests of one call of a model have in common.

    Repetitions of a request are in different groups, and each next repetition is divided among more of them, so that it is run
    in other batches than the ones before.
    """
    groups: dict[tuple[Any, ...], list[Request]] = {}
    for place, request in enumerate(requests):
        part = request.repeat, place % (request.repeat + 1)
        groups.setdefault((request.identifiers, len(request.images), *part), []).append(request)
    return list(groups.values())


def candidate_attention(attention: Floats, requests: Sequence[Request]) -> Floats | None:
    """Attention to the image of each position, Float[n, L, N]; None if an option of a request is a text.

    Args:
        attention: Float[n, L, images], to every image.
        requests: n.
    """
    places = [request.places for request in requests]
    if None in places:
        return None
    return np.take_along_axis(np.asarray(attention), np.asarray(places)[:, None, :], axis=2)


def candidate_maps(maps: Sequence[Floats], grids: Ints, requests: Sequence[Request]) -> tuple[list[Floats], Ints]:
    """Token maps and their grids by position, where every option is an image; see `Evidence.token_map`.

    Args:
        maps: Float[image tokens] of each request, by image as displayed.
        grids: Int[n, N, 3], tokens, height and width of each image.
        requests: n.
    """
    places = np.asarray([request.places for request in requests], dtype=np.int64)
    by_image = [np.split(row, np.cumsum(sizes)[:-1]) for row, sizes in zip(maps, grids[:, :, 0], strict=True)]
    moved = [np.concatenate([row[place] for place in shown]) for row, shown in zip(by_image, places, strict=True)]
    return moved, np.take_along_axis(grids, places[:, :, None], axis=1)


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
    """Refuses to evaluate samples that an intervention was calibrated on; requests of the calibration split are not evaluated.

    Raises:
        EvidenceError: a test request has a sample or an image of the calibration.
    """
    if intervention is None:
        return
    evaluated = [request for request in requests if request.split == "test"]
    pictures = [image.digest for request in evaluated for image in request.images]
    intervention.check_disjoint([request.sample_id for request in evaluated], pictures)


class VLM(Protocol):
    """A vision-language model that returns evidence.

    Attributes:
        name: as the user gave it.
        fingerprint: JSON-serialisable facts that determine the evidence: weights (revision or file hashes), dtype, attention
            implementation, image preparation, chat template, library versions. Not the device, not the batch size.
    """

    name: str

    @property
    def fingerprint(self) -> Mapping[str, Any]: ...

    def evidence(self, requests: Sequence[Request]) -> Evidence:
        """One row per request, in their order; all requests have the same number of candidates.

        The model splits them into batches that fit in memory.

        Raises:
            DataError: an image cannot be read.
            UnsupportedModelError: a decoder layer gave no attention row, or the images' token spans cannot be found.
        """
        ...

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 16) -> list[str]:
        """Greedy free text, one reply per request, without special tokens."""
        ...


@runtime_checkable
class Batched(Protocol):
    """A model that gives evidence batch by batch; any other is called with a few requests at a time (`REQUESTS_A_CALL`)."""

    def evidence_batches(self, requests: Sequence[Request]) -> Iterator[Evidence]:
        """The rows of `VLM.evidence`, yielded batch by batch in any order; `key` identifies the rows.

        Each batch can be stored at once, so that a killed run loses at most the batch in progress.
        """


@runtime_checkable
class ReadsProbes(Protocol):
    """A model that can read probes of the same images together with their requests, at less than the cost of a pass each."""

    def probed_batches(self, groups: Sequence[Sequence[Request]]) -> Iterator[list[Evidence]]:
        """The rows of requests and their probes, batch by batch in any order.

        Args:
            groups: a request and its probes, equally many; all requests have the same identifiers and number of images.

        Returns:
            For each batch, rows of its requests, then rows of each probe of theirs in the same order.
        """


@runtime_checkable
class Limited(Protocol):
    """A model that gives less than evidence with attention, and cannot be run under interventions.

    Attributes:
        name: of the model.
        gives: what it gives; methods that need more are refused before it is run.
    """

    name: str
    gives: frozenset[Requirement]


@runtime_checkable
class Metered(Protocol):
    """A model whose answers are paid for by the token."""

    @property
    def usage(self) -> Usage:
        """Tokens of all answers so far."""


@dataclass(frozen=True)
class Usage:
    """Tokens as a server counts them, and what it says about who answered.

    Attributes:
        prompt: of the prompts.
        reply: of the replies.
        answers: number of answers by the name that the server gives the model that answered, where it gives one.
    """

    prompt: int = 0
    reply: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt + other.prompt, self.reply + other.reply, self.answers + other.answers)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.prompt - other.prompt, self.reply - other.reply, self.answers - other.answers)


@runtime_checkable
class Changeable(Protocol):
    """A model that can run under an intervention."""

    def under(self, intervention: Intervention | None) -> AbstractContextManager[None]:
        """While open, the model runs under the intervention, and its `fingerprint` includes it; None changes nothing.

        Contexts nest: the one opened first is the first in written order.

        Raises:
            UnsupportedModelError: its attention cannot be changed in this way; raised by the first forward pass at the latest.
        """


@runtime_checkable
class MapsTokens(Protocol):
    """A model that can record its attention to every image token."""

    def mapping_tokens(self) -> AbstractContextManager[None]:
        """While open, evidence has `Evidence.token_map`."""


@runtime_checkable
class Calibratable(Protocol):
    """A model that interventions can be calibrated on."""

    def calibrated(self, intervention: Intervention, requests: Sequence[Request]) -> Intervention:
        """The intervention with what it learns from the unchanged model's passes over calibration requests.

        The returned intervention also stores `calibration_origin` of the model and the requests.

        Raises:
            UserError: the model cannot take a request, or a learned value is not finite.
            UnsupportedModelError: the model lacks what the intervention learns from.
        """


ReadPrompt = Callable[["PromptLayout", Callable[[], None]], Item]
"""Takes a batch's layout and a function that runs the model on the batch once; returns what it computed from the pass."""


@runtime_checkable
class RunsPrompts(Protocol):
    """A model of transformers whose passes over prompts can be observed from inside."""

    name: str
    model: Any
    processor: Any

    @property
    def fingerprint(self) -> Mapping[str, Any]: ...

    def read_prompts(self, requests: Sequence[Request], read: ReadPrompt[Item]) -> Iterator[Item]:
        """Yields what `read` returns for each batch of prompts, as soon as it is available, in an order that the model chooses.

        A prompt ends where the candidates' tokens begin; nothing is appended to it. Where memory does not suffice, `read` is
        called again with smaller batches, and the error is dropped.
        """
        ...


def calibration_origin(fingerprint: Mapping[str, Any], requests: Sequence[Request]) -> dict[str, Any]:
    """What determines the learned values of an intervention besides its parameters: the unchanged model and the requests."""
    keys = hashlib.sha256("\n".join(sorted(request.key for request in requests)).encode()).hexdigest()[:32]
    return {"model": dict(fingerprint), "requests": keys}


@runtime_checkable
class Writer(Protocol):
    """A model that generates replies with any `Decoding`, and reports their cost."""

    def reply_batches(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[list[Reply]]:
        """Replies, one per key, yielded batch by batch in any order."""


def greedy_texts(model: Writer, requests: Sequence[Request], max_new_tokens: int) -> list[str]:
    """One greedy reply per request, in their order."""
    batches = model.reply_batches(requests, Decoding(max_new_tokens=max_new_tokens))
    texts = {reply.key: reply.texts[0] for batch in batches for reply in batch}
    return [texts[request.key] for request in requests]


@dataclass(frozen=True)
class PromptFault:
    """Why a model cannot take a sample.

    Attributes:
        sample_id: of the sample.
        problem: what is wrong and how to fix it; completes a sentence that begins with the sample's name.
    """

    sample_id: str
    problem: str

    def __str__(self) -> str:
        return f"Sample {self.sample_id}: {self.problem}"


@dataclass(frozen=True)
class PromptReport:
    """Result of a check of prompts.

    Attributes:
        faults: in the order of the requests.
        longest: number of tokens of the longest valid prompt that was counted; 0 if none was.
        context: the model's maximum sequence length in tokens; None if it is unknown.
    """

    faults: tuple[PromptFault, ...] = ()
    longest: int = 0
    context: int | None = None


def refuse(faults: Sequence[PromptFault]) -> None:
    """Raises an error for the first fault, if there is any.

    Raises:
        DataError: there is a fault.
    """
    if not faults:
        return
    samples = len({fault.sample_id for fault in faults})
    others = f" ({samples - 1} more sample{'s' if samples > 2 else ''} likewise; `lad-eval validate` with --model lists all.)"
    raise DataError(f"{faults[0]}{others if samples > 1 else ''}")


@runtime_checkable
class ReadsPrompts(Protocol):
    """Checks, without running a model, whether it can take requests."""

    name: str

    def check_prompts(self, requests: Sequence[Request], *, reply_tokens: int = 0, exact: int | None = 1) -> PromptReport:
        """Faults of the requests' prompts.

        Args:
            requests: to check.
            reply_tokens: maximum length of a reply.
            exact: number of the longest prompts to prepare with their images, where their length cannot be computed otherwise;
                None: all. With 0, images are not read where that is possible.
        """
        ...
