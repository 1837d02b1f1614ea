"""A model behind a server: replies, and candidates' log-probabilities where the server gives them; no attention."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, TypeVar

from lad_eval.errors import UnsupportedModelError, UserError, did_you_mean, first_line
from lad_eval.evidence.replies import UNKNOWN_PASSES, Decoding, Reply
from lad_eval.evidence.table import Evidence
from lad_eval.methods.base import Requirement
from lad_eval.models.base import ImagePreparation, Usage, greedy_texts
from lad_eval.models.fingerprint import package_versions
from lad_eval.models.inputs.images import check_image_preparation
from lad_eval.models.server.address import Address
from lad_eval.models.server.answers import (
    TOP_LOG_PROBS,
    Completion,
    candidate_log_probs,
    read_completion,
    read_models,
)
from lad_eval.models.server.client import Client, RequestRefusedError
from lad_eval.models.server.messages import IMAGE_FORMAT, ChatMessages
from lad_eval.models.server.parallel import in_parallel
from lad_eval.tasks.request import Request
from lad_eval.version import __version__

CONCURRENCY = 8
"""Requests at once, unless a command says otherwise."""
TIMEOUT = 600.0
"""Seconds to wait for an answer, unless a command says otherwise."""
T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_CHAT = "/chat/completions"
_REFUSED = (400, 422)
_OWN_FIELDS = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "n", "logprobs", "top_logprobs"}
    | {"stream"}
)


class ServedVLM:
    """Implements `lad_eval.models.base.VLM` with requests to a server, several at once.

    Args:
        served: the server's name of the model.
        address: of the server.
        name: for tables and run folders.
        revision: what the user says about the served weights, which a server does not; part of the fingerprint.
        image_preparation: as for a local model.
        concurrency: requests at once.
        timeout: seconds to wait for an answer.
        extra_body: further fields of every request; part of the fingerprint.
        pause: seconds before a failed request is sent the second time.

    Raises:
        UserError: an invalid image preparation or extra field, or the server cannot be reached or refuses the key.
    """

    gives: frozenset[Requirement] = frozenset({"replies", "log_probs"})

    def __init__(
        self,
        served: str,
        address: Address,
        *,
        name: str,
        revision: str | None = None,
        image_preparation: ImagePreparation | str = "protocol",
        concurrency: int = CONCURRENCY,
        timeout: float = TIMEOUT,
        extra_body: Mapping[str, Any] | None = None,
        pause: float = 1.0,
    ) -> None:
        self.name = name
        self._served, self._revision, self._extra = served, revision, dict(extra_body or {})
        self._preparation = check_image_preparation(image_preparation)
        self._concurrency = concurrency
        if taken := sorted(_OWN_FIELDS & self._extra.keys()):
            raise UserError(f"--extra-body must not hold {taken[0]!r}, which the methods decide.")
        try:
            json.dumps(self._extra, allow_nan=False)
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"--extra-body must hold what JSON has, no NaN or Infinity: {first_line(error)}.") from error
        self._messages = ChatMessages(self._preparation, self._extra)
        self._client = Client(address, connections=concurrency, timeout=timeout, pause=pause)
        self._length_field = "max_tokens"
        self._several = True
        self._usage, self._lock = Usage(), Lock()
        self._answering: str | None = None
        self._changed = False
        self._listed = self._models()

    @property
    def usage(self) -> Usage:
        """Tokens of all answers so far, as the server counts them."""
        return self._usage

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What is known to determine the answers: neither the server's address, which may change, nor the weights.

        A server that serves other weights under the same name needs another `revision`.
        """
        versions = package_versions()
        return {
            "model": self.name,
            "weights": "as served" if self._revision is None else f"as served, revision {self._revision}",
            "architecture": "unknown",
            "protocol": "chat completions",
            "image_preparation": self._preparation,
            "image_format": IMAGE_FORMAT,
            **({"extra_body": self._extra} if self._extra else {}),
            "versions": {"lad_eval": __version__, "pillow": versions["pillow"]},
        }

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 16) -> list[str]:
        """Greedy free text, one reply per request."""
        return greedy_texts(self, requests, max_new_tokens)

    def reply_batches(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[list[Reply]]:
        """Replies as soon as they arrive, in any order; requests with equal keys are sent once."""
        unique = list({request.key: request for request in requests}.values())

        def write(request: Request) -> Reply:
            started = time.perf_counter()
            texts, usage = self._texts(request, decoding)
            passes = UNKNOWN_PASSES if usage is None else usage.reply
            seconds = (time.perf_counter() - started) / self._workers(unique)
            return Reply(request.key, tuple(text.strip() for text in texts), passes, seconds)

        yield from self._in_parallel(unique, write)

    def evidence(self, requests: Sequence[Request]) -> Evidence:
        """One row per request, in their order; without attention."""
        if not requests:
            raise UserError("There are no requests to run.")
        rows = Evidence.concatenate(list(self.evidence_batches(requests)))
        return rows.select_keys([request.key for request in requests])

    def evidence_batches(self, requests: Sequence[Request]) -> Iterator[Evidence]:
        """Rows as soon as they arrive, in any order.

        Raises:
            UnsupportedModelError: the server gives no log-probabilities, or not those of all candidates.
        """
        workers = self._workers(requests)
        for rows in self._in_parallel(requests, lambda request: self._row(request, workers)):
            yield Evidence.concatenate(rows)

    def _in_parallel(self, requests: Sequence[Request], work: Callable[[Request], T]) -> Iterator[list[T]]:
        self._client.resume()
        return in_parallel(requests, work, self._workers(requests), self._client.stop)

    def _workers(self, requests: Sequence[Request]) -> int:
        return max(1, min(self._concurrency, len(requests)))

    def _row(self, request: Request, workers: int) -> Evidence:
        """A row of evidence; a request's share of the time is what it took, divided among the requests sent at once."""
        started = time.perf_counter()
        answer = self._complete(request, 1, {"temperature": 0.0, "logprobs": True, "top_logprobs": TOP_LOG_PROBS})
        if answer.top is None:
            raise UnsupportedModelError(
                f"The server of {self.name} gives no log-probabilities (logprobs); use methods that read replies: generate, cot, "
                "self-consistency or majority+generate."
            )
        log_probs = candidate_log_probs(answer.top, request.identifiers, request.sample_id)
        return Evidence.from_arrays(
            log_probs[None],
            None,
            [request.gold_position],
            [request.sample_id],
            perm=[request.permutation.order],
            split=[request.split],
            key=[request.key],
            seconds=[(time.perf_counter() - started) / workers],
            fingerprint=self.fingerprint,
        )

    def _texts(self, request: Request, decoding: Decoding) -> tuple[list[str], Usage | None]:
        """The replies to a request, and the tokens of all answers; None if the server does not report them.

        All are requested at once (`n`), so that the prompt is read, and paid for, once; one by one if the server cannot do that.
        """
        texts: list[str] = []
        usage: Usage | None = Usage()
        while (left := decoding.samples - len(texts)) > 0:
            fields: dict[str, Any] = {"temperature": decoding.temperature}
            if decoding.temperature:
                fields |= {"top_p": 1.0, "seed": _seed(decoding.seed, request.key, len(texts))}
            answer = self._complete(request, decoding.max_new_tokens, fields, left if self._several else 1)
            texts += answer.texts[:left]
            usage = None if usage is None or answer.usage is None else usage + answer.usage
        return texts, usage

    def _complete(self, request: Request, tokens: int, fields: Mapping[str, Any], count: int = 1) -> Completion:
        """One answer of the server.

        Raises:
            UserError: see `Client.post`; or an image cannot be read.
        """
        several, length = {"n": count} if count > 1 else {}, self._length_field
        body = self._messages.body(request, self._served, **{length: tokens}, **fields, **several)
        try:
            answer = self._client.post(_CHAT, body, read_completion)
        except RequestRefusedError as error:
            if error.status in _REFUSED and length == "max_tokens" and "max_completion_tokens" in error.reason:
                self._length_field = "max_completion_tokens"  # newer models of OpenAI take no other
                return self._complete(request, tokens, fields, count)
            if error.status in _REFUSED and count > 1:
                answer = self._complete(request, tokens, fields)
                self._several = False
                return answer
            message = f"Sample {request.sample_id}: {error}{self._others()}"
            raise RequestRefusedError(message, error.status, error.reason) from error
        if len(answer.texts) < count:
            self._several = False
        self._note(answer)
        return answer

    def _note(self, answer: Completion) -> None:
        """Counts an answer; warns once if another model than before gave it."""
        with self._lock:
            if answer.usage is not None:
                self._usage += answer.usage
            if answer.model is None:
                return
            self._usage += Usage(answers=Counter([answer.model]))
            before = self._answering = self._answering or answer.model
            if self._changed or before == answer.model:
                return
            self._changed = True
        _LOG.warning(
            "The server answered as the model %r and now as %r: the answers of this run may come from different weights; "
            "metrics.json counts them (served_models).",
            before,
            answer.model,
        )

    def _models(self) -> list[str]:
        """Names of the models that the server lists; none where it has no list.

        Raises:
            UserError: the server cannot be reached or refuses the key.
        """
        try:
            return self._client.get("/models", read_models)
        except RequestRefusedError as error:
            if error.status in (401, 403):
                raise
            return []

    def _others(self) -> str:
        """A hint where the server does not list the model; not all servers list every model that they serve."""
        if not self._listed or self._served in self._listed:
            return ""
        return f" It lists {', '.join(self._listed[:5])}.{did_you_mean(self._served, self._listed)}"


def _seed(seed: int, key: str, sample: int) -> int:
    """Seed of a request's replies from a number on, 31 bits: the same in every run."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}/{sample}".encode()).digest()[:4], "big") >> 1
