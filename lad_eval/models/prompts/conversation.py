"""The chat message, the same for every family: the images, then the question; and the beginning of the model's reply."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from jinja2 import TemplateError

from lad_eval.errors import UnsupportedModelError
from lad_eval.models.inference.candidates import CandidateTrie, common_prefix
from lad_eval.models.prompts.date import CLOCK, DEFAULT_DATE, check_date, pin_date

# A character of Unicode's private use area, which has no meaning in templates and tokenizers.
_MARK = "\ue000"
THOUGHT = "<think>"
# What a template, a program by the model's author, may raise for a form of message that it does not take.
TEMPLATE_FAULTS = (TemplateError, TypeError, ValueError, LookupError, AttributeError)

# Days that differ from each other, and each from any third, in year, month, day or weekday.
_OTHER_DATES = ("1999-12-31", "2031-05-04")


@dataclass(frozen=True)
class CandidateTokens:
    """The candidates as continuations of a prompt.

    Attributes:
        trie: token sequences of the candidates, after the prompt as `drop` and `lead` change it.
        drop: how many tokens to remove from the prompt's end: those that merge with a candidate's beginning (usually none).
        lead: tokens between the prompt and every candidate, such as the space that a template puts after "ASSISTANT:".
    """

    trie: CandidateTrie
    drop: int
    lead: tuple[int, ...]


def cut_candidates(prompt: Sequence[int], led: Sequence[int], continued: Sequence[Sequence[int]]) -> CandidateTokens:
    """Cuts the candidates out of tokenized texts.

    Args:
        prompt: tokens of the prompt.
        led: tokens of the prompt and its lead.
        continued: tokens of the prompt, its lead and one candidate, for every candidate.

    Raises:
        UserError: two candidates have the same tokens.
    """
    stem = common_prefix([led, *continued])
    shared = len(common_prefix([prompt, stem]))
    trie = CandidateTrie(tuple(tuple(tokens[len(stem) :]) for tokens in continued))
    return CandidateTokens(trie=trie, drop=len(prompt) - shared, lead=stem[shared:])


class Conversation:
    """Renders questions with the chat template of a processor.

    Args:
        processor: a multi-modal processor of transformers.
        name: the model's name, for error texts.
        date: YYYY-MM-DD, printed by templates that print today's date.

    Raises:
        UnsupportedModelError: there is no chat template, or it has no place for images.
        UserError: not a date.
    """

    def __init__(self, processor: Any, name: str, date: str = DEFAULT_DATE) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        self._name = name
        self.template = _template(processor, name)
        self._date = check_date(date)
        # Templates of reasoning models open a thought by default; an answer of one index needs none.
        self._options = {"enable_thinking": False} if "enable_thinking" in self.template else {}
        self._listed = self._takes_lists()
        self._kind = type(processor).__name__
        self.prompt = lru_cache(maxsize=4096)(self._prompt)
        self._cached_candidates = lru_cache(maxsize=64)(self._candidate_tokens)

    @property
    def digest(self) -> str:
        """Hex digest of the template, 16 characters."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:16]

    @cached_property
    def dated(self) -> dict[str, str] | None:
        """The date that the template prints, and a hex digest of a prompt with it; None if it prints none."""
        if CLOCK not in self.template:
            return None
        rendered = [self._render(_MARK, 2, None, date) for date in (self._date, *_OTHER_DATES)]
        if len({*rendered}) == 1:
            return None
        return {"date": self._date, "digest": hashlib.sha256(rendered[0].encode()).hexdigest()[:16]}

    @property
    def placeholder(self) -> str:
        """The placeholder of one image in a prompt, before the processor expands it."""
        for holder in (self._processor, self._tokenizer):
            for attribute in ("image_token", "boi_token"):
                token = getattr(holder, attribute, None)
                if isinstance(token, str):
                    return token
        return "<image>"

    def adds_special_tokens(self, prompt: str) -> bool:
        """Whether the tokenizer must add its special tokens: not if the template has already added the first one."""
        begin = self._tokenizer.bos_token
        return not (begin and prompt.startswith(begin))

    def candidate_tokens(self, identifiers: tuple[str, ...], n_images: int, question: str) -> CandidateTokens:
        """The identifiers as the beginning of the model's reply to this question.

        Tokenized together with the prompt, not alone: a tokenizer may put a space mark before a single word, or merge a word
        with what precedes it. The tokens of the prompt and of all candidates are cut at their last common token.

        Raises:
            UserError: two identifiers have the same tokens.
        """
        # Only the end of the question can merge with a candidate, and only in templates that put nothing between them.
        return self._cached_candidates(identifiers, n_images, question.rpartition("\n")[2][-16:])

    def ending(self) -> tuple[str, str]:
        """The template's text after a question, up to the reply's turn, and its text between there and the reply."""
        prompt = self._prompt(_MARK, 1)
        return prompt.rpartition(_MARK)[2], self._lead(prompt, _MARK, 1)

    @cached_property
    def begun(self) -> str:
        """The beginning of a reply that the template adds itself: "<think>" if it opens a thought, else ""."""
        return THOUGHT if self.ending()[0].rstrip().endswith(THOUGHT) else ""

    def _prompt(self, question: str, n_images: int, labels: tuple[str, ...] = ()) -> str:
        """The text up to the beginning of the model's reply, with one placeholder per image.

        Args:
            question: that follows the images.
            n_images: number of images.
            labels: the text before each image; (): there is none.

        Raises:
            UnsupportedModelError: there are labels, and the template does not put text between images.
        """
        if labels and not self._interleaves:
            raise UnsupportedModelError(
                f"{self._name}: the chat template of its {self._kind} puts all images before the text, so that none can have a "
                "label; leave out methods with labelled."
            )
        return self._render(question, n_images, None, labels=labels)

    @cached_property
    def _interleaves(self) -> bool:
        """Whether the template leaves a text before each of two images where it stands."""
        labels = (f"1{_MARK}", f"2{_MARK}")
        rendered = self._render(_MARK, 2, None, labels=labels)
        begun, *rest = rendered.split(self.placeholder)
        return len(rest) == 2 and labels[0] in begun and labels[1] in rest[0] and _MARK in rest[1]

    def _render(
        self, question: str, n_images: int, reply: str | None, date: str | None = None, labels: Sequence[str] = ()
    ) -> str:
        def text(words: str) -> Any:
            return [{"type": "text", "text": words}] if self._listed else words

        image: Any = [{"type": "image"}] if self._listed else f"{self.placeholder}\n"
        pairs: list[tuple[Any, ...]] = [(text(label), image) for label in labels] or [(image,)] * n_images
        parts = [*itertools.chain.from_iterable(pairs), text(question)]
        content: Any = [*itertools.chain.from_iterable(parts)] if self._listed else "".join(parts)
        messages = [{"role": "user", "content": content}]
        if reply is not None:
            messages.append({"role": "assistant", "content": text(reply)})
        template = pin_date(self.template, date or self._date)
        rendered = self._processor.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=reply is None, tokenize=False, **self._options
        )
        return str(rendered)

    def _takes_lists(self) -> bool:
        """Whether the template takes a list of content parts; older ones take strings only."""
        for self._listed in (True, False):
            try:
                rendered = self._render(_MARK, 2, None)
            except TEMPLATE_FAULTS:
                continue
            if rendered.count(self.placeholder) == 2 and _MARK in rendered and "{'type'" not in rendered:
                return self._listed
        raise UnsupportedModelError(
            f"{self._name}: its chat template does not place images ({self.placeholder!r} is missing for an image); "
            "give the model folder a chat_template.jinja that does."
        )

    def _candidate_tokens(self, identifiers: tuple[str, ...], n_images: int, tail: str) -> CandidateTokens:
        prompt = self._prompt(_MARK + tail, n_images)
        lead = self._lead(prompt, _MARK + tail, n_images)
        before = self._tokens(prompt, prompt)
        led = self._tokens(prompt, prompt + lead)
        return cut_candidates(before, led, [self._tokens(prompt, prompt + lead + name) for name in identifiers])

    def _lead(self, prompt: str, question: str, n_images: int) -> str:
        """Text that the template itself puts between the prompt and a reply."""
        try:
            rendered = self._render(question, n_images, _MARK)
        except TEMPLATE_FAULTS:  # a template without assistant turns: the reply follows directly
            return ""
        begun, marked, _ = rendered.removeprefix(prompt).partition(_MARK)
        return begun if marked and rendered.startswith(prompt) else ""

    def _tokens(self, prompt: str, text: str) -> list[int]:
        tokens = self._tokenizer(text, add_special_tokens=self.adds_special_tokens(prompt))["input_ids"]
        return list(map(int, tokens))

    def length(self, question: str) -> int:
        """Number of tokens of the question alone."""
        return len(self._tokenizer(question, add_special_tokens=False)["input_ids"])


def _template(processor: Any, name: str) -> str:
    for holder in (processor, getattr(processor, "tokenizer", None)):
        template = getattr(holder, "chat_template", None)
        if isinstance(template, dict):
            template = template.get("default")
        if isinstance(template, str) and template:
            return template
    raise UnsupportedModelError(f"{name} has no chat template; add one to its folder as chat_template.jinja.")
