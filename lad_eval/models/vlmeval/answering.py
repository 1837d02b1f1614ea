"""What stands in for a model's `generate`: a look at the prompt, or free text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from lad_eval.attention.interventions import Intervention
from lad_eval.attention.layout import PromptLayout, padding_unknown
from lad_eval.errors import UnsupportedModelError
from lad_eval.evidence.replies import Decoding
from lad_eval.models.base import PromptFault, refuse
from lad_eval.models.batching import OutOfMemoryError, is_out_of_memory
from lad_eval.models.continuation import mend_prompt
from lad_eval.models.conversation import Answers
from lad_eval.models.generation import Draw, neutral_generation, reply_length
from lad_eval.models.prompt_check import too_long
from lad_eval.models.vlmeval.images import Shown, spans_in
from lad_eval.models.vlmeval.interception import Call
from lad_eval.models.vlmeval.passes import PassResult, changed, ends_of, padding_of, prefill, run_pass
from lad_eval.models.vlmeval.prompts import PromptEnd
from lad_eval.tasks.request import Request

Result = TypeVar("Result")

# Arguments by position in the prompt, which must change with it.
_BY_POSITION = ("position_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "cache_position")


@dataclass(frozen=True)
class ShownPrompt:
    """How prompts are looked at.

    Attributes:
        name: for error texts.
        model: whose `generate` the class calls.
        processor: of the class, or its tokenizer alone.
        shown: what is known of the images.
        request: what is asked.
        context: tokens that the model takes; None where nothing says it.
        intervention: on the attention, or None.
    """

    name: str
    model: Any
    processor: Any
    shown: Shown
    request: Request
    context: int | None
    intervention: Intervention | None = None

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)

    def check_length(self, tokens: int, following: int) -> None:
        """Refuses a prompt that, with what follows it, is longer than the model's context.

        Raises:
            DataError: it is.
        """
        if problem := too_long(tokens, following, self.context, self.name):
            refuse([PromptFault(self.request.sample_id, problem)])

    def layout(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> PromptLayout:
        """What a prompt, Int[1, T], is made of; see `lad_eval.models.vlmeval.images.spans_in`."""
        return PromptLayout(
            ids,
            spans_in(ids, inputs, [self.model], self.processor, self.shown, self.name),
            torch.ones_like(ids, dtype=torch.bool),
            (self.request.question,),
            self._decode,
            padding_unknown,
            tuple(image.digest for image in self.request.images),
            (self.request.sample_id,),
            (self.request.key,),
        )

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


class Standing:
    """Keeps the first fault: the classes of VLMEvalKit catch what they should not.

    Attributes:
        asked: whether `generate` was called at all.
        fault: the first error in answering, or None.
        seconds: that the whole answer took, preprocessing included.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = False
        self.fault: Exception | None = None
        self.seconds = 0.0

    def mend(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.asked = True
        return self._kept(lambda: self._prepare(ids, inputs))

    def answer(self, call: Call) -> tuple[list[int], list[int]]:
        self.asked = True
        return self._kept(lambda: self._answer(call))

    def _kept(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except Exception as fault:  # raised again; the class above may swallow it, and this keeps what it was
            self.fault = self.fault or fault
            raise

    def _prepare(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(inputs)

    def _answer(self, call: Call) -> tuple[list[int], list[int]]:
        raise NotImplementedError


class Writing(Standing):
    """Free text, written as `decoding` says, whatever the class asks for.

    Args:
        shown: the prompt.
        decoding: how the text is written.
        key: of the request; with the decoding and the sample it determines what is drawn.
        sample: number of the reply.
    """

    def __init__(self, shown: ShownPrompt, decoding: Decoding, key: str, sample: int) -> None:
        super().__init__(shown.name)
        self.passes = 0
        self._shown = shown
        self._decoding = decoding
        self._drawing = [Draw(decoding, [key], sample)] if decoding.temperature else []
        self._layout: PromptLayout | None = None

    def _prepare(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self._shown.check_length(ids.shape[1], self._decoding.max_new_tokens)
        if self._shown.intervention is not None:
            self._layout = self._shown.layout(ids.cpu(), inputs)
        return dict(inputs)

    @torch.no_grad()
    def _answer(self, call: Call) -> tuple[list[int], list[int]]:
        ends = ends_of(call, self._shown.tokenizer)
        neutral = neutral_generation(call.module, ends=ends, max_new_tokens=self._decoding.max_new_tokens, **padding_of(call))
        with changed(call.module, self._layout, self._shown.intervention), neutral as config:
            written = call.generate(**call.inputs, generation_config=config, logits_processor=self._drawing)
        ids = call.inputs.get("input_ids")
        tokens = written[0, 0 if ids is None else ids.shape[1] :].tolist()
        self.passes += reply_length(tokens, ends)
        return tokens, tokens


class Looking(Standing):
    """Looks at the prompt, and answers with the candidate that `choose` picks.

    Args:
        shown: the prompt.
        end: puts the candidates behind a prompt.
        identifiers: the candidates.
        choose: from what was seen to a position.
    """

    def __init__(
        self, shown: ShownPrompt, end: PromptEnd, identifiers: tuple[str, ...], choose: Callable[[Looking], int]
    ) -> None:
        super().__init__(shown.name)
        self._shown = shown
        self._end = end
        self._identifiers = identifiers
        self._choose = choose
        self._prompt: list[int] | None = None
        self._prepared: tuple[Answers, PromptLayout] | None = None
        self._seen: PassResult | None = None

    @property
    def intervention(self) -> Intervention | None:
        """Under which the prompt is looked at."""
        return self._shown.intervention

    @property
    def seen(self) -> PassResult:
        if self._seen is None:
            raise UnsupportedModelError(f"{self.name} is not supported: its class has not asked for an answer.")
        return self._seen

    def _prepare(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
        prompt = ids[0].tolist()
        if self._prompt is not None and prompt != self._prompt:
            raise UnsupportedModelError(
                f"{self.name} is not supported: its class asks more than one question to answer a message."
            )
        self._prompt = prompt
        if inputs.get("past_key_values") is not None:
            raise UnsupportedModelError(f"{self.name} is not supported: its class reads the prompt before it calls `generate`.")
        answers = self._end.answers(prompt, self._identifiers)
        self._shown.check_length(len(prompt) + len(answers.lead) - answers.drop, max(map(len, answers.trie.candidates)))
        mended = mend_prompt(inputs, answers)
        if answers.drop or answers.lead:
            self._check_positions(ids, inputs)
        row = mended["input_ids"].cpu()
        self._prepared = answers, self._shown.layout(row, inputs)
        return mended

    def _answer(self, call: Call) -> tuple[list[int], list[int]]:
        assert self._prepared is not None, "the prompt comes first"
        answers, layout = self._prepared
        ends = ends_of(call, self._shown.tokenizer)
        self._read(call, layout, answers, ends)
        chosen = self._choose(self)
        tokens = answers.trie.candidates[chosen]
        plain = [*answers.lead, *tokens]
        if answers.drop:  # the class cuts the reply off where its own prompt ended
            plain = list(map(int, self._shown.tokenizer(self._identifiers[chosen], add_special_tokens=False)["input_ids"]))
        return [*plain, ends[0]], [*tokens, ends[0]]

    def _read(self, call: Call, layout: PromptLayout, answers: Answers, ends: Sequence[int]) -> None:
        if self._seen is None:
            self._seen = run_pass(call, layout, answers.trie, ends, self._shown.intervention)

    def _check_positions(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> None:
        for name in _BY_POSITION:
            value = inputs.get(name)
            if isinstance(value, torch.Tensor) and value.shape != ids.shape:
                raise UnsupportedModelError(
                    f"{self.name} is not supported: its class passes {name} of shape {list(value.shape)}, which cannot "
                    "be changed together with the prompt's end."
                )


class Holding(Looking):
    """Holds the prompt that would be looked at, so that the model can be run on it later; answers with the first candidate."""

    def __init__(self, shown: ShownPrompt, end: PromptEnd, identifiers: tuple[str, ...]) -> None:
        super().__init__(shown, end, identifiers, lambda _: 0)
        self._held: tuple[Call, PromptLayout, Sequence[int]] | None = None

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
            raise OutOfMemoryError(f"{self.name}: one request does not fit in memory; its class asks one at a time.") from error

    @property
    def _call(self) -> tuple[Call, PromptLayout, Sequence[int]]:
        if self._held is None:
            raise UnsupportedModelError(f"{self.name} is not supported: its class has not asked for an answer.")
        return self._held

    def _read(self, call: Call, layout: PromptLayout, answers: Answers, ends: Sequence[int]) -> None:
        self._held = call, layout, ends
