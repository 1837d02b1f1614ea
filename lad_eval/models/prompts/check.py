"""Checks prompts before a model runs them: control tokens in a sample's text, and prompts longer than the context."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from lad_eval.errors import PictureError
from lad_eval.models.base import ImagePreparation, PromptFault, PromptReport
from lad_eval.models.inputs.images import check_image_preparation
from lad_eval.models.inputs.preparation import Preparation
from lad_eval.models.prompts.control import ControlTokens
from lad_eval.models.prompts.conversation import TEMPLATE_FAULTS, Conversation
from lad_eval.models.prompts.date import DEFAULT_DATE

if TYPE_CHECKING:
    from lad_eval.models.inputs.preparation import Batch, Preparation
    from lad_eval.tasks.request import Request


# Tokenizers without a maximum length have a huge placeholder number.
_NO_LENGTH = 10**9
# Scalings for which transformers documents that `max_position_embeddings` is the unscaled length.
_MULTIPLYING = ("linear", "dynamic", "yarn")


def context_length(config: Any, tokenizer: Any = None) -> int | None:
    """Maximum sequence length of a model in tokens, including its reply; None if it is unknown.

    `max_position_embeddings` of the text configuration, times the factor of its rotary scaling; where the configuration has none,
    the tokenizer's `model_max_length`. A sliding window is not a limit: it bounds how far a layer attends, not the length of a
    text.

    Args:
        config: of the model, or of its decoder.
        tokenizer: the model's, or None.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(text, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        return max(positions, _scaled(text, positions))
    length = getattr(tokenizer, "model_max_length", None)
    return int(length) if isinstance(length, (int, float)) and 0 < length < _NO_LENGTH else None


def _scaled(text: Any, positions: int) -> int:
    """Number of positions after rotary scaling; 0 if there is none, or if it differs between layers."""
    scaling = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    if not isinstance(scaling, dict):
        return 0
    factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings")
    if not isinstance(factor, (int, float)):
        return 0
    if isinstance(original, int):
        return int(original * factor)
    kind = scaling.get("rope_type", scaling.get("type"))
    return int(positions * factor) if kind in _MULTIPLYING else 0


# An ordinary question: words, lines, punctuation, and a space at the end.
_PROBE = 'Which "one"?\nIt\'s a < b & {c}:  d\nAnswer: '
# Number of prompts to tokenize at once.
_CHUNK = 512


class PromptChecker:
    """Checks the prompts of one model.

    A sample's text must not add control tokens to those that the chat template puts around any question, whether through the
    tokenizer, the processor or the template. The tokens of the whole prompt are counted.

    Args:
        conversation: renders the prompts.
        prepare: prepares inputs, which gives the number of image tokens.
        config: of the model.
        processor: of the model.
        name: of the model, for error texts.
    """

    def __init__(self, conversation: Conversation, prepare: Preparation, config: Any, processor: Any, name: str) -> None:
        self._conversation = conversation
        self._prepare = prepare
        self._tokenizer = processor.tokenizer
        self._controls = ControlTokens(self._tokenizer, processor)
        self._name = name
        self.context = context_length(config, self._tokenizer)
        self._frame = cache(self._count_frame)
        self._within = cache(self._controls_within)
        self._sound: dict[_Key, int] = {}
        self._image_tokens: dict[int, int] = {}
        self._answer_lengths: dict[tuple[tuple[str, ...], int], int] = {}

    def report(self, requests: Sequence[Request], *, reply_tokens: int = 0, exact: int | None = 0) -> PromptReport:
        """All faults of the requests' prompts, one per sample and question.

        With the protocol's image preparation all images become the same number of tokens, so that one prepared prompt gives the
        length of all. With images of different sizes a prompt must be prepared to know its length; of the others only the text is
        counted, with one token per image.

        Args:
            requests: to check.
            reply_tokens: maximum length of a reply.
            exact: number of the longest prompts to prepare where images have different sizes; None: all. Unless it is 0,
                images that the image processor refuses because of their size are faults too.
        """
        unique: dict[tuple[str, str, tuple[str, ...], int], Request] = {}
        for request in requests:
            unique.setdefault((request.sample_id, request.question, request.identifiers, len(request.images)), request)
        distinct = list(unique.values())
        faults = self._control_faults(distinct)
        sound = [request for request in distinct if id(request) not in faults]
        sound.sort(key=self._text_tokens, reverse=True)
        longest = 0
        faults |= self._size_faults(sound) if exact != 0 else {}
        for place, request in enumerate(request for request in sound if id(request) not in faults):
            try:
                tokens = self._tokens(request, prepare=exact is None or place < exact)
            except PictureError as fault:
                faults[id(request)] = _without_sample(fault)
                continue
            longest = max(longest, tokens)
            if problem := self._too_long(tokens, max(reply_tokens, self._answer_tokens(request))):
                faults[id(request)] = problem
        named = [PromptFault(request.sample_id, faults[id(request)]) for request in distinct if id(request) in faults]
        return PromptReport(tuple(named), longest, self.context)

    def length_faults(self, requests: Sequence[Request], batch: Batch, reply_tokens: int | None) -> list[PromptFault]:
        """Prompts of a prepared batch that are too long; with `reply_tokens` None the candidates follow."""
        following = max(map(len, batch.trie.candidates)) if reply_tokens is None else reply_tokens
        lengths = batch.inputs["attention_mask"].sum(dim=1).tolist()
        problems = [(r.sample_id, self._too_long(int(n), following)) for r, n in zip(requests, lengths, strict=True)]
        return [PromptFault(sample, problem) for sample, problem in problems if problem]

    def _control_faults(self, requests: Sequence[Request]) -> dict[int, str]:
        """Faults by `id` of the request; the text lengths of all other requests are cached."""
        faults: dict[int, str] = {}
        unchecked = [request for request in requests if _key(request) not in self._sound]
        for start in range(0, len(unchecked), _CHUNK):
            rendered: list[tuple[Request, str]] = []
            for request in unchecked[start : start + _CHUNK]:
                refusal, prompt = self._rendered(request)
                if refusal:
                    faults[id(request)] = refusal
                else:
                    rendered.append((request, prompt))
            for (request, _), ids in zip(rendered, self._tokenized([prompt for _, prompt in rendered]), strict=True):
                if problem := self._control_problem(request, ids):
                    faults[id(request)] = problem
                else:
                    self._sound[_key(request)] = len(ids)
        return faults

    def _size_faults(self, requests: Sequence[Request]) -> dict[int, str]:
        """Faults by `id` of the request: images that cannot be read, or are refused because of their size."""
        try:
            faults = self._prepare.size_faults(requests)
        except PictureError as fault:
            faults = [fault]
        first = {request.sample_id: request for request in reversed(requests)}
        return {id(first[fault.sample]): _without_sample(fault) for fault in faults if fault.sample in first}

    def _rendered(self, request: Request) -> tuple[str, str]:
        """The fault of a question before it is tokenized, or ""; and the prompt."""
        names = self._unwanted(self._controls.literal(request.question), request)
        if names:
            return control_problem(names, request, self._name), ""
        try:
            prompt = self._conversation.prompt(request.question, len(request.images), request.labels)
        except TEMPLATE_FAULTS as fault:
            reason = " ".join(str(fault).split()) or type(fault).__name__
            return self._template_problem(f"does not take its question ({reason})"), ""
        if self._verbatim and request.question.strip() not in prompt:
            return self._template_problem("changes its question"), ""
        return "", prompt

    def _unwanted(self, names: Iterable[str], request: Request) -> list[str]:
        return self._controls.unwanted(names, request.question, request.caption, request.options or ())

    def _template_problem(self, what: str) -> str:
        return f"the chat template of {self._name} {what}; reword it or leave the sample out."

    @cached_property
    def _verbatim(self) -> bool:
        """Whether the template leaves an ordinary question unchanged."""
        return _PROBE.strip() in self._conversation.prompt(_PROBE, 1)

    def _control_problem(self, request: Request, ids: Sequence[int]) -> str | None:
        frame = self._frame(len(request.images))
        count = self._controls.count(ids)
        more = [self._controls.name(token) for token in count if count[token] > frame[token]]
        names = self._unwanted(more, request)
        if not names:
            names = [name for identifier in request.identifiers for name in self._within(identifier)]
        if names:
            return control_problem(names, request, self._name)
        if any(count[token] < frame[token] for token in frame):
            return self._template_problem("changes its question")
        return None

    def _count_frame(self, n_images: int) -> Counter[int]:
        """Control tokens around any question."""
        [ids] = self._tokenized([self._conversation.prompt(_PROBE, n_images)])
        return self._controls.count(ids)

    def _tokenized(self, prompts: list[str]) -> list[list[int]]:
        if not prompts:
            return []
        adds = self._conversation.adds_special_tokens(prompts[0])
        with self._prepare.lock:
            return [list(map(int, ids)) for ids in self._tokenizer(prompts, add_special_tokens=adds)["input_ids"]]

    def _controls_within(self, text: str) -> list[str]:
        with self._prepare.lock:
            return self._controls.within(text)

    def _text_tokens(self, request: Request) -> int:
        return self._sound[_key(request)]

    def _tokens(self, request: Request, *, prepare: bool) -> int:
        """Number of tokens of a request's prompt, including image tokens as far as their number is known."""
        n_images = len(request.images)
        if self._prepare.images.preparation == "protocol":
            if n_images not in self._image_tokens:
                self._image_tokens[n_images] = self._prepared_tokens(request) - self._text_tokens(request)
            return self._text_tokens(request) + self._image_tokens[n_images]
        return self._prepared_tokens(request) if prepare else self._text_tokens(request)

    def _prepared_tokens(self, request: Request) -> int:
        return int(self._prepare([request], for_candidates=False).inputs["attention_mask"].sum())

    def _answer_tokens(self, request: Request) -> int:
        """Number of tokens from the prompt's end to the end of the longest candidate."""
        key = request.identifiers, len(request.images)
        if key not in self._answer_lengths:
            with self._prepare.lock:
                candidates = self._conversation.candidate_tokens(*key, request.question)
            self._answer_lengths[key] = len(candidates.lead) - candidates.drop + max(map(len, candidates.trie.candidates))
        return self._answer_lengths[key]

    def _too_long(self, tokens: int, following: int) -> str | None:
        return too_long(tokens, following, self.context, self._name)


def control_problem(names: Iterable[str], request: Request, model: str) -> str:
    """Message: control tokens in a sample's text."""
    name = next(iter(names))
    where = "caption" if request.caption is not None and name in request.caption else "question"
    return (
        f"its {where} becomes {name!r}, a control token or placeholder of {model}, and would not reach the model as text; "
        "reword it or leave the sample out."
    )


def too_long(tokens: int, following: int, context: int | None, model: str) -> str | None:
    """Message: a prompt and the tokens that follow it are longer than the context; None if they are not."""
    if context is None or tokens + following <= context:
        return None
    return (
        f"its prompt has {tokens} tokens (and {following} for the answer), and {model} takes {context}; shorten its text, "
        "or show fewer or smaller images."
    )


def _without_sample(fault: PictureError) -> str:
    return str(fault).removeprefix(f"Sample {fault.sample}: ")


_Key = tuple[str, str | None, int, tuple[str, ...]]


def _key(request: Request) -> _Key:
    return request.question, request.caption, len(request.images), request.labels


class PromptReader:
    """Implements `lad_eval.models.base.ReadsPrompts`.

    Args:
        config: of an image-text-to-text model of transformers.
        processor: of the model, with a chat template.
        name: for error texts.
        image_preparation: "protocol", "native" or "pad".
        date: YYYY-MM-DD, printed by chat templates that print today's date.

    Raises:
        UnsupportedModelError: there is no chat template, or it has no place for images.
        UserError: an invalid image preparation or date.
    """

    def __init__(
        self,
        config: Any,
        processor: Any,
        *,
        name: str,
        image_preparation: ImagePreparation | str = "protocol",
        date: str = DEFAULT_DATE,
    ) -> None:
        self.name = name
        conversation = Conversation(processor, name, date)
        prepare = Preparation(config, processor, conversation, check_image_preparation(image_preparation))
        self._prompts = PromptChecker(conversation, prepare, config, processor, name)

    def check_prompts(self, requests: Sequence[Request], *, reply_tokens: int = 0, exact: int | None = 1) -> PromptReport:
        """Control tokens in samples' texts, and prompts longer than the context."""
        return self._prompts.report(requests, reply_tokens=reply_tokens, exact=exact)
