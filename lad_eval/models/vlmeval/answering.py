"""What stands in for a model's `generate`: a look at the prompt, or free text."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from lad_eval.attention.interventions import Intervention
from lad_eval.attention.layout import PromptLayout, padding_unknown
from lad_eval.attention.recorder import record_last_row
from lad_eval.errors import UnsupportedModelError
from lad_eval.evidence.replies import Decoding
from lad_eval.models.base import PromptFault, refuse
from lad_eval.models.candidates import CandidateTrie
from lad_eval.models.continuation import continue_prefixes, end_ids, mend_prompt, select
from lad_eval.models.conversation import Answers
from lad_eval.models.generation import Draw, neutral_generation, reply_length
from lad_eval.models.prompt_check import too_long
from lad_eval.models.vlmeval.images import Shown, spans_in
from lad_eval.models.vlmeval.interception import Call
from lad_eval.models.vlmeval.prompts import PromptEnd
from lad_eval.tasks.request import Request

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sight:
    """What one look at one prompt gave.

    Attributes:
        log_probs: Float[1, N].
        attention: Float[1, L, N] over the images' own tokens.
        attention_delimited: the same with the delimiters.
        forward_passes: of the decoder.
    """

    log_probs: Floats
    attention: Floats
    attention_delimited: Floats
    forward_passes: int


@torch.no_grad()
def look(
    call: Call, layout: PromptLayout, trie: CandidateTrie, ends: Sequence[int], intervention: Intervention | None = None
) -> Sight:
    """Candidate log-probabilities and attention after the call's prompt, read under an intervention if there is one.

    Raises:
        UnsupportedModelError: a decoder layer gave no attention row, or the logits are not finite.
    """
    counted = tuple(ends) if trie.needs_end else ()
    columns = [branch.columns(counted) for branch in trie.branches]
    with changed(call.module, layout, intervention), record_last_row(call.module, layout.spans) as recorder:
        output = _prefill(call, call.inputs, ends)
    attention, delimited = recorder.attention()
    rooted = [select(output.logits[0], columns[0])] if len(trie.prefixes) < len(trie.branches) else []
    passes = 1
    if trie.prefixes:
        cache, length = output.past_key_values, layout.length
        rest = columns[len(rooted) :]
        if _continues(call.module, cache, length):
            mask = call.inputs.get("attention_mask")
            mask = torch.ones((1, length), dtype=torch.long, device=call.module.device) if mask is None else mask
            rooted += continue_prefixes(call.module, cache, mask, trie.prefixes, rest)
            passes += 1
        else:
            for prefix, wanted in zip(trie.prefixes, rest, strict=True):
                # The whole prompt is read again, so that what changes its attention must be open again.
                with changed(call.module, layout.extended(prefix), intervention):
                    longer = _prefill(call, lengthened(call.module, call.inputs, prefix), ends)
                rooted.append(select(longer.logits[0], wanted))
                passes += 1
    logits = [branch.double().cpu().numpy() for branch in rooted]
    if not all(np.isfinite(branch).all() for branch in logits):
        raise UnsupportedModelError(
            f"{type(call.module).__name__} gave logits that are not finite in {call.module.dtype}; try bfloat16 or float32."
        )
    return Sight(trie.log_probs(logits, counted), _array(attention), _array(delimited), passes)


def ends_of(call: Call, tokenizer: Any) -> tuple[int, ...]:
    """Every token id that would end this call's reply: as its class asks, else the model's own."""
    asked = call.settings.get("eos_token_id")
    if asked is None:
        asked = getattr(call.settings.get("generation_config"), "eos_token_id", None)
    if asked is None:
        return end_ids(call.module, tokenizer)
    if isinstance(asked, torch.Tensor):
        asked = asked.flatten().tolist()
    return tuple(dict.fromkeys(map(int, asked if isinstance(asked, (list, tuple)) else [asked])))


def padding_of(call: Call) -> dict[str, Any]:
    """The padding token that the call's class asks for, if it does."""
    asked = call.settings.get("pad_token_id")
    return {} if asked is None else {"pad_token_id": asked}


def changed(module: Any, layout: PromptLayout | None, intervention: Intervention | None) -> AbstractContextManager[None]:
    """The intervention on this model and prompt."""
    if intervention is None or layout is None:
        return nullcontext()
    return intervention.applied(module, layout)


def lengthened(module: Any, inputs: dict[str, Any], tokens: Sequence[int]) -> dict[str, Any]:
    """The inputs with text tokens added at their end."""
    embeds, ids = inputs.get("inputs_embeds"), inputs.get("input_ids")
    shown: torch.Tensor = inputs["inputs_embeds"] if ids is None else ids
    shape = shown.shape[:2]
    more = torch.tensor([list(tokens)], dtype=torch.long, device=shown.device)
    longer = dict(inputs)
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor) and value.shape == shape:
            added = more if name == "input_ids" else torch.ones_like(more) if name == "attention_mask" else torch.zeros_like(more)
            longer[name] = torch.cat([value, added.to(value)], dim=1)
    if embeds is not None:
        longer["inputs_embeds"] = torch.cat([embeds, module.get_input_embeddings()(more).to(embeds)], dim=1)
    return longer


def _prefill(call: Call, inputs: dict[str, Any], ends: Sequence[int]) -> Any:
    options = {"output_logits": True, "return_dict_in_generate": True}
    with neutral_generation(call.module, ends=ends, max_new_tokens=1, **options) as config:
        return call.generate(**inputs, generation_config=config)


def _continues(module: Any, cache: Any, length: int) -> bool:
    """Whether the prefill's cache can be repeated and gone on with; if not, every prefix is run with its whole prompt."""
    if not hasattr(cache, "layers") or cache.get_seq_length() != length:
        return False
    return "logits_to_keep" in inspect.signature(type(module).forward).parameters


def _array(values: torch.Tensor) -> Floats:
    return values.double().numpy()


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
        )

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


class _Standing:
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
        return self._kept(lambda: self._mend(ids, inputs))

    def answer(self, call: Call) -> tuple[list[int], list[int]]:
        self.asked = True
        return self._kept(lambda: self._answer(call))

    def _kept(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except Exception as fault:  # raised again; the class above may swallow it, and this keeps what it was
            self.fault = self.fault or fault
            raise

    def _mend(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return dict(inputs)

    def _answer(self, call: Call) -> tuple[list[int], list[int]]:
        raise NotImplementedError


class Writing(_Standing):
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

    def _mend(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
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


class Looking(_Standing):
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
        self._seen: Sight | None = None

    @property
    def intervention(self) -> Intervention | None:
        """Under which the prompt is looked at."""
        return self._shown.intervention

    @property
    def seen(self) -> Sight:
        if self._seen is None:
            raise UnsupportedModelError(f"{self.name} is not supported: its class has not asked for an answer.")
        return self._seen

    def _mend(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
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
        if self._seen is None:
            self._seen = look(call, layout, answers.trie, ends, self._shown.intervention)
        chosen = self._choose(self)
        tokens = answers.trie.candidates[chosen]
        plain = [*answers.lead, *tokens]
        if answers.drop:  # the class cuts the reply off where its own prompt ended
            plain = list(map(int, self._shown.tokenizer(self._identifiers[chosen], add_special_tokens=False)["input_ids"]))
        return [*plain, ends[0]], [*tokens, ends[0]]

    def _check_positions(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> None:
        for name in _BY_POSITION:
            value = inputs.get(name)
            if isinstance(value, torch.Tensor) and value.shape != ids.shape:
                raise UnsupportedModelError(
                    f"{self.name} is not supported: its class passes {name} of shape {list(value.shape)}, which cannot "
                    "be changed together with the prompt's end."
                )
