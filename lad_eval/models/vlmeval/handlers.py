"""Handlers that replace a model's `generate`: one returns evidence, one free text, one holds the prompt for calibration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from lad_eval.attention.caches import cache_in
from lad_eval.attention.interventions import Intervention
from lad_eval.attention.layout import PromptLayout, padding_unknown
from lad_eval.attention.spans import Spans
from lad_eval.errors import OutOfMemoryError, UnsupportedModelError
from lad_eval.evidence.replies import Decoding
from lad_eval.models.base import PromptFault, refuse
from lad_eval.models.inference.batching import is_out_of_memory
from lad_eval.models.inference.continuation import align_prompt_end
from lad_eval.models.inference.generation import GumbelSampler, neutral_generation, reply_length
from lad_eval.models.prompts.check import too_long
from lad_eval.models.prompts.conversation import CandidateTokens
from lad_eval.models.vlmeval.images import ImageFacts, spans_in
from lad_eval.models.vlmeval.interception import GenerateCall
from lad_eval.models.vlmeval.passes import PassResult, changed, ends_of, padding_of, prefill, run_pass
from lad_eval.models.vlmeval.prompts import PromptEnd
from lad_eval.tasks.request import Request

Result = TypeVar("Result")

# Arguments with one entry per prompt token: they must be changed together with the prompt.
_BY_POSITION = ("position_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "cache_position")


@dataclass(frozen=True)
class PromptContext:
    """What a handler needs to know about a prompt besides its tokens.

    Attributes:
        name: for error texts.
        model: whose `generate` the class calls.
        processor: of the class, or its tokenizer alone.
        images: what is known of the images.
        request: the question.
        context_length: the model's maximum sequence length in tokens; None if it is unknown.
        intervention: on the attention, or None.
        find_padding: see `PromptLayout`.
    """

    name: str
    model: Any
    processor: Any
    images: ImageFacts
    request: Request
    context_length: int | None
    intervention: Intervention | None = None
    find_padding: Callable[[Spans], torch.Tensor] = padding_unknown

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)

    def check_length(self, tokens: int, following: int) -> None:
        """Refuses a prompt that, with the tokens that follow it, is longer than the model's context.

        Raises:
            DataError: it is.
        """
        if problem := too_long(tokens, following, self.context_length, self.name):
            refuse([PromptFault(self.request.sample_id, problem)])

    def layout(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> PromptLayout:
        """The layout of a prompt, Int[1, T]; errors as of `lad_eval.models.vlmeval.images.spans_in`."""
        return PromptLayout(
            ids,
            spans_in(ids, inputs, [self.model], self.processor, self.images, self.name),
            torch.ones_like(ids, dtype=torch.bool),
            (self.request.question,),
            self._decode,
            self.find_padding,
            tuple(image.digest for image in self.request.images),
            (self.request.sample_id,),
            (self.request.key,),
        )

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


class BaseHandler(ABC):
    """Records the first exception, since the classes of VLMEvalKit swallow exceptions.

    Attributes:
        called: whether `generate` was called at all.
        fault: the first exception raised while handling a call, or None.
        seconds: duration of the whole reply, preprocessing included.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.called = False
        self.fault: Exception | None = None
        self.seconds = 0.0

    def prepare_inputs(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.called = True
        return self._recording_fault(lambda: self._prepare_inputs(ids, inputs))

    def answer(self, call: GenerateCall) -> tuple[list[int], list[int]]:
        self.called = True
        return self._recording_fault(lambda: self._answer(call))

    def _recording_fault(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except Exception as fault:  # raised again, and recorded because the class that called `generate` may swallow it
            self.fault = self.fault or fault
            raise

    def _prepare_inputs(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(inputs)

    @abstractmethod
    def _answer(self, call: GenerateCall) -> tuple[list[int], list[int]]:
        """Tokens of the reply, as `GenerateHandler.answer` gives them."""


class ReplyHandler(BaseHandler):
    """Generates free text with the settings of `decoding`; those of the class are ignored.

    Args:
        context: of the prompt.
        decoding: generation settings.
        key: of the request; together with the decoding and the sample it seeds the random numbers.
        sample: number of the reply.
    """

    def __init__(self, context: PromptContext, decoding: Decoding, key: str, sample: int) -> None:
        super().__init__(context.name)
        self.passes = 0
        self._context = context
        self._decoding = decoding
        self._logits_processors = [GumbelSampler(decoding, [(key, sample)])] if decoding.temperature else []
        self._layout: PromptLayout | None = None

    def _prepare_inputs(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self._context.check_length(ids.shape[1], self._decoding.max_new_tokens)
        if self._context.intervention is not None:
            self._layout = self._context.layout(ids.cpu(), inputs)
        return dict(inputs)

    @torch.no_grad()
    def _answer(self, call: GenerateCall) -> tuple[list[int], list[int]]:
        ends = ends_of(call, self._context.tokenizer)
        neutral = neutral_generation(call.module, ends=ends, max_new_tokens=self._decoding.max_new_tokens, **padding_of(call))
        with changed(call.module, self._layout, self._context.intervention), neutral as config:
            written = call.generate(**call.inputs, generation_config=config, logits_processor=self._logits_processors)
        ids = call.inputs.get("input_ids")
        tokens = written[0, 0 if ids is None else ids.shape[1] :].tolist()
        self.passes += reply_length(tokens, ends)
        return tokens, tokens


class EvidenceHandler(BaseHandler):
    """Runs the prompt for its evidence, and replies with the candidate that `choose` picks.

    Args:
        context: of the prompt.
        end: tokenizes the candidates as continuations of a prompt.
        identifiers: the candidates.
        choose: gives the position of the chosen candidate, called once `result` is available.
    """

    def __init__(
        self, context: PromptContext, end: PromptEnd, identifiers: tuple[str, ...], choose: Callable[[EvidenceHandler], int]
    ) -> None:
        super().__init__(context.name)
        self._context = context
        self._end = end
        self._identifiers = identifiers
        self._choose = choose
        self._prompt_ids: list[int] | None = None
        self._prepared: tuple[CandidateTokens, PromptLayout] | None = None
        self._result: PassResult | None = None

    @property
    def intervention(self) -> Intervention | None:
        """The intervention that the prompt is run under."""
        return self._context.intervention

    @property
    def result(self) -> PassResult:
        if self._result is None:
            raise UnsupportedModelError(f"{self.name} is not supported: its class has not called `generate`.")
        return self._result

    def _prepare_inputs(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
        prompt = ids[0].tolist()
        if self._prompt_ids is not None and prompt != self._prompt_ids:
            raise UnsupportedModelError(f"{self.name} is not supported: its class runs more than one prompt to answer a message.")
        self._prompt_ids = prompt
        if cache_in(inputs) is not None:
            raise UnsupportedModelError(f"{self.name} is not supported: its class reads the prompt before it calls `generate`.")
        candidates = self._end.candidate_tokens(prompt, self._identifiers)
        self._context.check_length(
            len(prompt) + len(candidates.lead) - candidates.drop, max(map(len, candidates.trie.candidates))
        )
        aligned = align_prompt_end(inputs, candidates)
        if candidates.drop or candidates.lead:
            self._check_positions(ids, inputs)
        row = aligned["input_ids"].cpu()
        self._prepared = candidates, self._context.layout(row, inputs)
        return aligned

    def _answer(self, call: GenerateCall) -> tuple[list[int], list[int]]:
        assert self._prepared is not None, "the prompt comes first"
        candidates, layout = self._prepared
        ends = ends_of(call, self._context.tokenizer)
        self._read(call, layout, candidates, ends)
        chosen = self._choose(self)
        tokens = candidates.trie.candidates[chosen]
        plain = [*candidates.lead, *tokens]
        if candidates.drop:  # the class cuts the reply off at the end of its own prompt
            plain = list(map(int, self._context.tokenizer(self._identifiers[chosen], add_special_tokens=False)["input_ids"]))
        return [*plain, ends[0]], [*tokens, ends[0]]

    def _read(self, call: GenerateCall, layout: PromptLayout, candidates: CandidateTokens, ends: Sequence[int]) -> None:
        if self._result is None:
            self._result = run_pass(call, layout, candidates.trie, ends, self._context.intervention)

    def _check_positions(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> None:
        for name in _BY_POSITION:
            value = inputs.get(name)
            if isinstance(value, torch.Tensor) and value.shape != ids.shape:
                raise UnsupportedModelError(
                    f"{self.name} is not supported: its class passes {name} of shape {list(value.shape)}, which cannot "
                    "be changed together with the prompt's end."
                )


class CalibrationHandler(EvidenceHandler):
    """Holds the prompt, so that the model can be run on it later; replies with the first candidate."""

    def __init__(self, context: PromptContext, end: PromptEnd, identifiers: tuple[str, ...]) -> None:
        super().__init__(context, end, identifiers, lambda _: 0)
        self._held: tuple[GenerateCall, PromptLayout, Sequence[int]] | None = None

    @property
    def module(self) -> Any:
        """The model that reads the prompt."""
        return self._call[0].module

    @property
    def layout(self) -> PromptLayout:
        return self._call[1]

    @torch.no_grad()
    def run(self) -> None:
        """One pass over the prompt, under whatever hooks are open.

        Raises:
            OutOfMemoryError: it does not fit.
        """
        call, _, ends = self._call
        try:
            prefill(call, call.inputs, ends)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"{self.name}: one request does not fit in memory; its class runs one request at a time."
            ) from error

    @property
    def _call(self) -> tuple[GenerateCall, PromptLayout, Sequence[int]]:
        if self._held is None:
            raise UnsupportedModelError(f"{self.name} is not supported: its class has not called `generate`.")
        return self._held

    def _read(self, call: GenerateCall, layout: PromptLayout, candidates: CandidateTokens, ends: Sequence[int]) -> None:
        self._held = call, layout, ends
