"""Prompts made by VLMEvalKit's classes: forbidden text, the date, and where the prompt ends and the candidates begin."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from lad_eval.data.pictures import picture_facts
from lad_eval.errors import UnsupportedModelError
from lad_eval.files.atomic import Scratch
from lad_eval.models.base import ImagePreparation, PromptFault
from lad_eval.models.inputs.preparation import ImageCache
from lad_eval.models.prompts.check import control_problem
from lad_eval.models.prompts.control import ControlTokens
from lad_eval.models.prompts.conversation import CandidateTokens, Conversation, cut_candidates
from lad_eval.models.prompts.date import CLOCK, pin_date
from lad_eval.tasks.request import ImageSource, Request, showing

# Number of tokens at the prompt's end that are tokenized again; merges with a candidate reach back by one or two.
_TAIL = 48
# Placeholders that VLMEvalKit's classes and the code of their models search for in a prompt's text, whatever the tokenizer.
_MEDIA = ("<image>", "<video>", "<audio>", "<img>", "</img>", "<ImageHere>", "<image_placeholder>", "<|image|>", "<IMG_CONTEXT>")
_THOUGHTS = (("<think>", "</think>"), ("<thinking>", "</thinking>"))


class PromptEnd:
    """Tokenizes candidates as continuations of prompts given as tokens.

    The text between the prompt and a reply (`lead`) is that of the processor's chat template if the prompt ends as the template
    ends it. Where a class writes its prompt itself, it is empty after white space or a special token, and a space after any other
    character ("Answer:").

    Args:
        tokenizer: of the prompts.
        conversation: the processor's chat template, or None if there is none.
        name: for error texts.
    """

    def __init__(self, tokenizer: Any, conversation: Conversation | None, name: str) -> None:
        self._tokenizer = tokenizer
        self._name = name
        self._template = conversation.ending() if conversation else None
        self._special = _special_ids(tokenizer)
        self._cached = lru_cache(maxsize=64)(self._candidate_tokens)

    def candidate_tokens(self, ids: Sequence[int], identifiers: tuple[str, ...]) -> CandidateTokens:
        """The identifiers as the beginning of the model's reply to a prompt.

        Raises:
            UnsupportedModelError: the prompt's end does not tokenize to the same tokens again, or it starts the model's
                reasoning.
            UserError: two identifiers have the same tokens.
        """
        return self._cached(tuple(map(int, ids[-_TAIL:])), identifiers)

    def _candidate_tokens(self, tail: tuple[int, ...], identifiers: tuple[str, ...]) -> CandidateTokens:
        # From the last special token on: nothing merges across it, so that this part tokenizes alone as in the prompt.
        begin = max((i for i, token in enumerate(tail) if token in self._special), default=0)
        piece = tail[begin:]
        text = self._text(piece)
        self._check_thought(self._text(tail))
        lead = self._lead(self._text(tail), piece[-1] in self._special)
        before = self._tokens(text)
        if before[-min(8, len(piece)) :] != list(piece[-8:]):
            raise UnsupportedModelError(
                f"{self._name} is not supported: its tokenizer turns {text[-24:]!r}, the end of its own prompt, into other "
                "tokens than the prompt has."
            )
        return cut_candidates(before, self._tokens(text + lead), [self._tokens(text + lead + name) for name in identifiers])

    def _lead(self, text: str, special: bool) -> str:
        if self._template is not None:
            ending, lead = self._template
            if ending.strip() and text.endswith(ending):
                return lead
        return "" if special or not text or text[-1].isspace() else " "

    def _check_thought(self, text: str) -> None:
        for opening, closing in _THOUGHTS:
            if text.rfind(opening) > text.rfind(closing):
                raise UnsupportedModelError(
                    f"{self._name} is not supported: its prompt starts the reasoning ({opening}), and an answer there would be "
                    "part of it; use the variant without thinking."
                )

    def _text(self, ids: Sequence[int]) -> str:
        plain = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return str(self._tokenizer.decode(list(ids), **plain))

    def _tokens(self, text: str) -> list[int]:
        return list(map(int, self._tokenizer(text, add_special_tokens=False)["input_ids"]))


class TextCheck:
    """Finds control tokens in the texts that a class receives; the prompt around them is the class's own.

    Args:
        processor: of the class, or its tokenizer alone.
        name: of the model, for error texts.
    """

    def __init__(self, processor: Any, name: str) -> None:
        self._controls = ControlTokens(getattr(processor, "tokenizer", processor), processor)
        self._within = lru_cache(maxsize=4096)(self._controls.within)
        self._name = name

    def fault(self, request: Request, texts: Sequence[str] = ()) -> PromptFault | None:
        """The fault of a request's text; None if there is none.

        Args:
            request: to check.
            texts: of its message, if the caller built it; otherwise the question is checked.
        """
        for text in dict.fromkeys([*(texts or [request.question]), *request.identifiers]):
            media = [name for name in _MEDIA if name in text]
            unwanted = self._controls.unwanted(self._within(text), text, request.caption, request.options or ())
            if names := [*media, *unwanted]:
                return PromptFault(request.sample_id, control_problem(names, request, self._name))
        return None


def reads_clock(processor: Any) -> bool:
    """Whether a chat template prints today's date."""
    return any(CLOCK in str(getattr(holder, "chat_template", "")) for holder in _holders(processor))


@contextmanager
def dated(processor: Any, date: str) -> Iterator[None]:
    """While open, chat templates print this date instead of today's; afterwards they are restored."""
    before = [(holder, holder.chat_template) for holder in _holders(processor) if reads_clock(holder)]
    try:
        for holder, template in before:
            named = template if isinstance(template, dict) else {"default": template}
            pinned = {name: pin_date(text, date) for name, text in named.items()}
            holder.chat_template = pinned if isinstance(template, dict) else pinned["default"]
        yield
    finally:
        for holder, template in before:
            holder.chat_template = template


def _holders(processor: Any) -> list[Any]:
    tokenizer = getattr(processor, "tokenizer", None)
    return [processor] if tokenizer is None else [processor, tokenizer]


def _special_ids(tokenizer: Any) -> frozenset[int]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset({*added, *tokenizer.all_special_ids})


Message = list[dict[str, Any]]

_FILES = 512


class Messages:
    """Writes images losslessly to files for VLMEvalKit's classes, in a folder that is removed with this object.

    Args:
        preparation: "protocol" resizes every image to 336 x 336 pixels; "native" leaves its size to the model's
            class; "pad" pads it to a square, in the mean colour of CLIP.
    """

    def __init__(self, preparation: ImagePreparation) -> None:
        self.preparation = preparation
        self._images = ImageCache(preparation)
        self._folder: Scratch | None = None
        self._files: OrderedDict[str, Path] = OrderedDict()

    def of(self, request: Request) -> Message:
        """The message of one request; its files exist until a few hundred further images were written.

        Raises:
            DataError: an image cannot be read.
        """
        with showing(request.sample_id):
            images = [{"type": "image", "value": str(self._file(source))} for source in request.images]
        return [*images, {"type": "text", "value": request.question}]

    def _file(self, source: ImageSource) -> Path:
        digest = source.digest
        if digest not in self._files:
            if self._folder is None:
                self._folder = Scratch("images")
            path = Path(self._folder.name, f"{hashlib.sha256(digest.encode()).hexdigest()[:32]}.png")
            self._images.get(source).image.save(path, format="PNG", compress_level=1)
            self._files[digest] = path
            while len(self._files) > _FILES:
                self._files.popitem(last=False)[1].unlink(missing_ok=True)
        self._files.move_to_end(digest)
        return self._files[digest]


def images_of(message: Sequence[dict[str, Any]]) -> list[str]:
    """Values of the message's images, in order."""
    return [str(part["value"]) for part in message if part.get("type") == "image"]


def equal_sizes(paths: Sequence[str]) -> bool:
    """Whether all image files have one size in pixels.

    Raises:
        DataError: a file cannot be read.
    """
    return len({picture_facts(Path(path)).header.size for path in paths}) == 1
