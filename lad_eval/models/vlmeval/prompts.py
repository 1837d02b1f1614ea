"""Where a prompt made by somebody else ends, and the candidates as its continuation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from lad_eval.errors import UnsupportedModelError
from lad_eval.models.conversation import Answers, Conversation, joined

# Tokens of the prompt's end that are looked at; merges with a candidate reach back by one or two.
_TAIL = 48
_THOUGHTS = (("<think>", "</think>"), ("<thinking>", "</thinking>"))


class PromptEnd:
    """Puts candidates behind the end of prompts given as tokens.

    What stands between the prompt and a reply (`lead`) is told by the processor's chat template where the prompt ends as the
    template ends it. Where a class writes its prompt itself: nothing behind white space or a special token, a space behind any
    other character ("Answer:").

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
        self._cached = lru_cache(maxsize=64)(self._answers)

    def answers(self, ids: Sequence[int], identifiers: tuple[str, ...]) -> Answers:
        """The identifiers as the beginning of the model's reply to a prompt.

        Raises:
            UnsupportedModelError: the prompt's end cannot be read back, or it opens a thought.
            UserError: two identifiers have the same tokens.
        """
        return self._cached(tuple(map(int, ids[-_TAIL:])), identifiers)

    def _answers(self, tail: tuple[int, ...], identifiers: tuple[str, ...]) -> Answers:
        # From the last special token on: across it nothing merges, so that the piece reads alone as it reads in the prompt.
        begin = max((i for i, token in enumerate(tail) if token in self._special), default=0)
        piece = tail[begin:]
        text = self._text(piece)
        self._check_thought(self._text(tail))
        lead = self._lead(self._text(tail), piece[-1] in self._special)
        before = self._tokens(text)
        if before[-min(8, len(piece)) :] != list(piece[-8:]):
            raise UnsupportedModelError(
                f"{self._name} is not supported: its tokenizer does not read {text[-24:]!r}, the end of its own prompt, back "
                "as it was."
            )
        return joined(before, self._tokens(text + lead), [self._tokens(text + lead + name) for name in identifiers])

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
                    f"{self._name} is not supported: its prompt opens a thought ({opening}), and an answer put there would be "
                    "part of the thought; use the variant without thinking."
                )

    def _text(self, ids: Sequence[int]) -> str:
        plain = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return str(self._tokenizer.decode(list(ids), **plain))

    def _tokens(self, text: str) -> list[int]:
        return list(map(int, self._tokenizer(text, add_special_tokens=False)["input_ids"]))


def _special_ids(tokenizer: Any) -> frozenset[int]:
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return frozenset({*added, *tokenizer.all_special_ids})
