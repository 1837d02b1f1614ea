"""A VLMEvalKit model as a VLM: its evidence is recorded while its class answers."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from lad_eval.attention.interventions import Intervention
from lad_eval.attention.layout import PromptLayout, padding_unknown
from lad_eval.attention.spans import Spans
from lad_eval.errors import DataError, OutOfMemoryError, UnsupportedModelError, UserError
from lad_eval.evidence.replies import Decoding, Reply
from lad_eval.evidence.table import Evidence
from lad_eval.models.base import (
    ImagePreparation,
    PromptReport,
    Repeated,
    calibration_origin,
    candidate_attention,
    check_not_calibrated_on,
    greedy_texts,
    refuse,
)
from lad_eval.models.inference.batching import is_out_of_memory
from lad_eval.models.inputs.images import check_image_preparation
from lad_eval.models.interventions import InterventionMixin
from lad_eval.models.prompts.check import context_length
from lad_eval.models.prompts.conversation import Conversation
from lad_eval.models.prompts.date import DEFAULT_DATE, check_date
from lad_eval.models.releases import repair
from lad_eval.models.vlmeval.handlers import BaseHandler, CalibrationHandler, EvidenceHandler, PromptContext, ReplyHandler
from lad_eval.models.vlmeval.images import ImageFacts
from lad_eval.models.vlmeval.interception import generating_modules, intercepted
from lad_eval.models.vlmeval.padding import PaddingOfClass
from lad_eval.models.vlmeval.prompts import Message, Messages, PromptEnd, TextCheck, dated, equal_sizes, images_of, reads_clock
from lad_eval.models.vlmeval.source import describe
from lad_eval.models.vlmeval.writing import PassThroughHandler, request_of
from lad_eval.tasks.request import Request

ChooseCandidate = Callable[[Evidence], int]
"""Maps one row of evidence to the answered position, 0-based."""


class InterceptedVLM(InterventionMixin):
    """Implements the protocols of `lad_eval.models.base` around a VLMEvalKit model, one message at a time.

    Args:
        inner: a VLMEvalKit model object (`generate(message, dataset)`) whose model answers through transformers' `generate`.
        name: for tables and error texts.
        dataset: VLMEvalKit's name of the data set, by which some classes choose their prompt.
        image_preparation: of requests' images, before the class's own: "protocol" resizes to 336 x 336; "native" changes nothing;
            "pad" pads to a square, in the mean colour of CLIP.
        date: YYYY-MM-DD, printed by chat templates that print today's date.
        weights: what identifies the weights; None: a digest of the weights themselves.
        arguments: that the class was constructed with, for the fingerprint.

    Raises:
        UnsupportedModelError: the object holds no model that answers through transformers' `generate`, or no tokenizer.
    """

    def __init__(
        self,
        inner: Any,
        *,
        name: str,
        dataset: str | None = None,
        image_preparation: ImagePreparation | str = "protocol",
        date: str = DEFAULT_DATE,
        weights: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.inner = inner
        self.name = name
        self.dataset = dataset
        self._date = check_date(date)
        self.model = inner_model(inner, name)
        repair(self.model)
        self.processor = inner_processor(inner, name)
        self.messages = Messages(check_image_preparation(image_preparation))
        self._padding = PaddingOfClass(name, getattr(self.processor, "tokenizer", self.processor))
        self._texts = TextCheck(self.processor, name)
        self._weights = weights
        self._arguments = dict(arguments or {})
        self._end = PromptEnd(
            getattr(self.processor, "tokenizer", self.processor), _conversation(self.processor, name, date), name
        )
        generating_modules(self.model)  # raises at once if there are none
        self._context_length = context_length(self.model.config, getattr(self.processor, "tokenizer", self.processor))

    @cached_property
    def _described(self) -> Mapping[str, Any]:
        return describe(
            self.inner,
            self.model,
            self.processor,
            name=self.name,
            dataset=self.dataset,
            weights=self._weights,
            arguments=self._arguments,
            image_preparation=self.messages.preparation,
            date=self._date if reads_clock(self.processor) else None,
        )

    def check_prompts(self, requests: Sequence[Request], *, reply_tokens: int = 0, exact: int | None = 1) -> PromptReport:
        """Control tokens in samples' texts; the length of prompts is known only when the class makes them.

        Raises:
            UnsupportedModelError: images are labelled, and not every class leaves a text between images where it stands.
        """
        if any(request.labels for request in requests):
            raise UnsupportedModelError(
                f"{self.name} is run by a class of VLMEvalKit, which may move text between images; leave out labelled."
            )
        unique = {(request.sample_id, request.question, request.identifiers): request for request in requests}
        faults = (self._texts.fault(request) for request in unique.values())
        return PromptReport(tuple(fault for fault in faults if fault is not None), context=self._context_length)

    def evidence(self, requests: Sequence[Request]) -> Evidence:
        """One row per request, in their order; see the protocol."""
        return Evidence.concatenate(list(self.evidence_batches(_some(requests))))

    def evidence_batches(self, requests: Sequence[Request]) -> Iterator[Evidence]:
        """Evidence request by request, each as soon as it is computed, under the interventions open when this is called."""
        _check_alike(requests)
        refuse(self.check_prompts(requests).faults)
        intervention = self._intervention
        check_not_calibrated_on(intervention, requests)
        return (self._evidence_of(self.messages.of(request), request, intervention) for request in requests)

    def evidence_of(self, messages: Sequence[Message], requests: Sequence[Request]) -> Evidence:
        """Evidence for messages that the caller built, one per request.

        Raises:
            UserError: there is not one message per request.
            DataError: a message has another number of images than its request, or its text contains a control token.
            UnsupportedModelError: see the class.
        """
        if len(messages) != len(requests):
            raise UserError(f"{len(messages)} messages for {len(requests)} requests: there must be one message per request.")
        _check_alike(_some(requests))
        check_not_calibrated_on(self._intervention, requests)
        return Evidence.concatenate(
            [self._evidence_of(m, r, self._intervention) for m, r in zip(messages, requests, strict=True)]
        )

    def answer(self, message: Message, request: Request, choose: ChooseCandidate | None = None) -> tuple[str, Evidence]:
        """The class's text for the candidate that `choose` picks (None: the likeliest), and the evidence, from one pass."""
        handler = self._evidence_handler(message, request, choose, self._intervention)
        text = self._generate_with(handler, message, request, date=self._date)
        return text, self._row(handler, request)

    def generate(self, requests: Sequence[Request], *, max_new_tokens: int = 16) -> list[str]:
        """Greedy free text for the class's own prompt, decoded by the class."""
        return greedy_texts(self, requests, max_new_tokens)

    def reply_batches(self, requests: Sequence[Request], decoding: Decoding) -> Iterator[list[Reply]]:
        """Replies to the class's own prompt, decoded by the class, each as soon as it is generated; each key once."""
        refuse(self.check_prompts(requests).faults)
        intervention = self._intervention
        check_not_calibrated_on(intervention, requests)
        each_once = {request.key: request for request in requests}.values()
        return ([self._reply(request, decoding, intervention)] for request in each_once)

    def write(self, message: Message) -> str:
        """The class's own reply to a message of any data set, under the interventions that are open.

        The class's generation settings are not changed: under an intervention that changes nothing, the reply is the class's.

        Raises:
            UserError: the message holds something other than images and text.
            UnsupportedModelError: see the class; or the intervention cannot be applied.
        """
        request = request_of(message)
        images = ImageFacts(len(request.images), not request.images or equal_sizes(images_of(message)))
        context = self._context(images, message, request, self._intervention)
        return self._generate_with(PassThroughHandler(context), message, request, date=None)

    def calibrated(self, intervention: Intervention, requests: Sequence[Request]) -> Intervention:
        """The intervention with what it learns from the unchanged model's passes over calibration requests, one at a time."""
        refuse(self.check_prompts(_some(requests)).faults)
        module = self._calibration_handler(requests[0], intervention).module

        def passes() -> Iterator[tuple[PromptLayout, Callable[[], None]]]:
            for request in requests:
                handler = self._calibration_handler(request, intervention)
                yield handler.layout, handler.run

        return intervention.calibrated(module, Repeated(passes), calibration_origin(self.fingerprint, requests))

    def _calibration_handler(self, request: Request, intervention: Intervention) -> CalibrationHandler:
        message = self.messages.of(request)
        find_padding = self._find_padding(message, request, intervention)
        context = replace(self._prompt_context(message, request, None), find_padding=find_padding)
        handler = CalibrationHandler(context, self._end, request.identifiers)
        self._generate_with(handler, message, request, date=self._date)
        return handler

    def _reply(self, request: Request, decoding: Decoding, intervention: Intervention | None) -> Reply:
        message = self.messages.of(request)
        context = self._prompt_context(message, request, intervention)
        handlers = [ReplyHandler(context, decoding, request.key, sample) for sample in range(decoding.samples)]
        texts = tuple(self._generate_with(handler, message, request, date=self._date).strip() for handler in handlers)
        return Reply(request.key, texts, sum(h.passes for h in handlers), sum(h.seconds for h in handlers))

    def _evidence_of(self, message: Message, request: Request, intervention: Intervention | None) -> Evidence:
        handler = self._evidence_handler(message, request, None, intervention)
        self._generate_with(handler, message, request, date=self._date)
        return self._row(handler, request)

    def _evidence_handler(
        self, message: Message, request: Request, choose: ChooseCandidate | None, intervention: Intervention | None
    ) -> EvidenceHandler:
        def chosen(handler: EvidenceHandler) -> int:
            return int(handler.result.log_probs[0].argmax()) if choose is None else choose(self._row(handler, request))

        return EvidenceHandler(self._prompt_context(message, request, intervention), self._end, request.identifiers, chosen)

    def _prompt_context(self, message: Message, request: Request, intervention: Intervention | None) -> PromptContext:
        paths = images_of(message)
        if len(paths) != len(request.images):
            raise DataError(
                f"Sample {request.sample_id}: its message shows {len(paths)} images, and its request has {len(request.images)}."
            )
        texts = [str(part["value"]) for part in message if part.get("type") == "text"]
        if fault := self._texts.fault(request, texts):
            refuse([fault])
        images = ImageFacts(len(paths), equal_sizes(paths))
        return self._context(images, message, request, intervention)

    def _context(
        self, images: ImageFacts, message: Message, request: Request, intervention: Intervention | None
    ) -> PromptContext:
        find_padding = self._find_padding(message, request, intervention)
        facts = (self.name, self.model, self.processor, images, request, self._context_length, intervention)
        return PromptContext(*facts, find_padding=find_padding)

    def _find_padding(
        self, message: Message, request: Request, intervention: Intervention | None
    ) -> Callable[[Spans], torch.Tensor]:
        # The blank pictures that the class is compared on would not show padding that was added before the class.
        if intervention is None or not intervention.reads_padding or self.messages.preparation == "pad":
            return padding_unknown
        return self._padding.of(message, partial(self._generate_with, request=request, date=None))

    def _generate_with(self, handler: BaseHandler, message: Message, request: Request, *, date: str | None) -> str:
        """The class's text for what the handler generates; exceptions of the handler are raised even if it catches them."""
        started = time.perf_counter()
        fault: Exception | None = None
        text: Any = None
        with nullcontext() if date is None else dated(self.processor, date), intercepted(self.model, handler), torch.no_grad():
            try:
                text = self.inner.generate(message=copy.deepcopy(message), dataset=self.dataset)
            except UserError:
                raise
            except Exception as error:  # third-party code, which may raise any exception
                fault = error
        fault = handler.fault or fault
        if fault is not None:
            user_error = self._as_user_error(fault, request.sample_id)
            raise user_error from (None if user_error is fault else fault)
        if not handler.called:
            raise UnsupportedModelError(
                f"{self.name} is not supported: its class {type(self.inner).__name__} answered without calling `generate`."
            )
        handler.seconds = time.perf_counter() - started
        return text if isinstance(text, str) else str(text[0] if isinstance(text, (list, tuple)) and text else text)

    def _as_user_error(self, fault: Exception, sample_id: str) -> UserError:
        """The fault in one line; a class may fail on an image of the sample, such as one that is too large."""
        if isinstance(fault, UserError):
            return fault
        if is_out_of_memory(fault):
            return OutOfMemoryError(f"{self.name}: one request does not fit in memory; its class runs one request at a time.")
        reason = next((line.strip() for line in str(fault).splitlines() if line.strip()), "no reason given")
        return UnsupportedModelError(
            f"{self.name} is not supported here: its class {type(self.inner).__name__} fails on sample {sample_id} "
            f"({type(fault).__name__}: {reason})."
        )

    def _row(self, handler: EvidenceHandler, request: Request) -> Evidence:
        result = handler.result
        return Evidence.from_arrays(
            result.log_probs,
            candidate_attention(result.attention, [request]),
            [request.gold_position],
            [request.sample_id],
            attention_delimited=candidate_attention(result.attention_delimited, [request]),
            perm=[request.permutation.order],
            split=[request.split],
            key=[request.key],
            forward_passes=np.full(1, result.forward_passes),
            seconds=np.full(1, handler.seconds),
            fingerprint=self._fingerprint_under(handler.intervention),
        )


def inner_model(inner: Any, name: str) -> Any:
    """The transformers model of a VLMEvalKit object.

    Raises:
        UnsupportedModelError: it has none.
    """
    model = getattr(inner, "model", None)
    if isinstance(model, torch.nn.Module):
        return model
    if type(inner).__module__.startswith("vlmeval.api") or getattr(inner, "is_api", False):
        raise UnsupportedModelError(f"{name} is not supported: it is an API, which shows neither its logits nor its attention.")
    if getattr(inner, "use_vllm", False) or getattr(inner, "use_lmdeploy", False):
        raise UnsupportedModelError(
            f"{name} is not supported: vLLM and LMDeploy give no attention; leave out use_vllm and use_lmdeploy."
        )
    raise UnsupportedModelError(
        f"{name} is not supported: {type(inner).__name__} has no transformers model as its `model` attribute."
    )


def inner_processor(inner: Any, name: str) -> Any:
    """The processor, or the tokenizer alone, of a VLMEvalKit object.

    Raises:
        UnsupportedModelError: it has none.
    """
    for attribute in ("processor", "tokenizer", "vl_chat_processor"):
        candidate = getattr(inner, attribute, None)
        if callable(getattr(getattr(candidate, "tokenizer", candidate), "decode", None)):
            return candidate
    raise UnsupportedModelError(f"{name} is not supported: {type(inner).__name__} has neither a processor nor a tokenizer.")


def _conversation(processor: Any, name: str, date: str) -> Conversation | None:
    if getattr(processor, "tokenizer", None) is None:
        return None
    try:
        return Conversation(processor, name, date)
    except UnsupportedModelError:  # no usable chat template: the class builds its prompt itself
        return None


def _check_alike(requests: Sequence[Request]) -> None:
    if len({(len(request.images), request.identifiers) for request in requests}) > 1:
        raise UserError("Requests of one call must have the same number of images and the same identifiers.")


def _some(requests: Sequence[Request]) -> Sequence[Request]:
    if not requests:
        raise UserError("There are no requests to run.")
    return requests
