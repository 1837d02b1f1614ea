"""Methods that read the answer from text that the model generates."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np

from lad_eval.errors import EvidenceError
from lad_eval.evidence.replies import UNPARSABLE, Decoding, Replies
from lad_eval.evidence.table import Ints
from lad_eval.methods.base import Answers, Method, Requirement, Results, passes_of
from lad_eval.methods.condition import Condition
from lad_eval.methods.orders import most_voted
from lad_eval.parameters import Count, Positive

END_OF_THOUGHT = "</think>"
_THOUGHT = "<think>"
# Names of candidates that are also words; followed by another word they are read as words: "A red dog", "I see".
_WORDS = frozenset({"a", "A", "I"})
_GOES_ON = re.compile(r"[ \t]+(?!(?:or|and|nor|is|but)\b)([^\W\d_]{2,})", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.,])[+-]?\d+(?:[.,]\d+)*(?!\w)")


def parse_reply(reply: str, identifiers: Sequence[str], *, thoughtful: bool = False) -> int | None:
    """0-based position of the one candidate that a reply names; None if it names none, several, or a number that is no candidate.

    A candidate is named where its identifier is a separate word; naming it twice counts once. Where candidates are
    numbers, any other number ("5" of 4, "2.5", "-1") makes the reply unparsable. Words such as "second" may begin with a capital.

    Args:
        reply: as the model wrote it.
        identifiers: of the N candidates, in displayed order.
        thoughtful: the reply may begin with reasoning in <think> tags, and only the text after it counts; reasoning
            without an end leaves no answer.
    """
    text = reply
    if thoughtful:
        text = reply.rpartition(END_OF_THOUGHT)[2]
        if _THOUGHT in text:
            return None
    named = _numbers(text) if all(name.isdecimal() for name in identifiers) else _words(text, identifiers)
    if len(named) != 1:
        return None
    (name,) = named
    return list(identifiers).index(name) if name in identifiers else None


def _numbers(text: str) -> set[str]:
    return {match.group() for match in _NUMBER.finditer(text)}


def _words(text: str, identifiers: Sequence[str]) -> set[str]:
    """Identifiers that are words of the text; "twenty-first" is not "first"."""
    longest_first = sorted(identifiers, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w'’]|-\w)", _flags(identifiers))
    named = set()
    for match in pattern.finditer(text):
        name = match.group()
        if name in _WORDS and (next_word := _GOES_ON.match(text, match.end())) and next_word[1] not in identifiers:
            continue
        named.add(name if name in identifiers else name.lower())
    return named


def _flags(identifiers: Sequence[str]) -> re.RegexFlag:
    ordinals = all(name.islower() and len(name) > 2 for name in identifiers)
    return re.IGNORECASE if ordinals else re.RegexFlag(0)


class ReplyMethod(Method):
    """Decides from generated replies, not from evidence."""

    needs: frozenset[Requirement] = frozenset({"replies"})

    @property
    @abstractmethod
    def decoding(self) -> Decoding:
        """How the replies must have been generated."""

    @abstractmethod
    def answers(self, replies: Replies) -> Ints:
        """0-based displayed positions, Int[n]; UNPARSABLE where a reply names no candidate, or several."""

    def draws(self, replies: Replies) -> Ints | None:
        """The answer of each reply by itself, Int[n, R]; None for a method with one reply to a request."""
        return None

    def decide(self, results: Results, index: Ints) -> Answers:
        if not isinstance(results, Replies):
            raise EvidenceError(f"{self.name} decides from replies, not from evidence.")
        shown = index[:, 0]
        each = self.draws(results)
        draws = None if each is None else each[shown].T
        return Answers(None, self.answers(results)[shown], passes_of(results, index), draws=draws)


class Generate(ReplyMethod):
    """The model's greedy reply, parsed strictly; one that does not name exactly one candidate is wrong and counted as unparsable.

    Args:
        max_new_tokens: maximum length of a reply.
    """

    name = "generate"
    thoughtful: ClassVar[bool] = False

    def __init__(self, *, max_new_tokens: Annotated[int, Count()] = 16) -> None:
        self.max_new_tokens = max_new_tokens

    @property
    def decoding(self) -> Decoding:
        return Decoding(max_new_tokens=self.max_new_tokens)

    def answers(self, replies: Replies) -> Ints:
        return most_voted(self._each(replies), replies.n_candidates)

    def _each(self, replies: Replies) -> Ints:
        """The answer of each reply by itself, Int[n, R]."""
        positions = [
            [parse_reply(text, names, thoughtful=self.thoughtful) for text in texts]
            for texts, names in zip(replies.texts, replies.identifiers, strict=True)
        ]
        return np.asarray([[UNPARSABLE if p is None else p for p in row] for row in positions], dtype=np.int64)


class ChainOfThought(Generate):
    """A greedy reply that reasons in <think> tags first; what follows them is parsed strictly.

    Source: arXiv 2605.11591, baseline "CoT".

    Args:
        max_new_tokens: maximum length of a reply, reasoning included.
    """

    name = "cot"
    thoughtful = True
    condition = Condition(("cot",))

    def __init__(self, *, max_new_tokens: Annotated[int, Count()] = 512) -> None:
        super().__init__(max_new_tokens=max_new_tokens)


class SelfConsistency(ChainOfThought):
    """Samples several replies that reason first; the majority of their answers wins, and without any there is no answer.

    Source: arXiv 2605.11591, baseline "self-consistency": 10 samples, temperature 0.7, majority. Among answers with equally many
    votes the first one wins.

    Args:
        samples: replies to each request.
        temperature: of sampling.
        max_new_tokens: of each.
        seed: of sampling.
    """

    name = "self-consistency"

    def __init__(
        self,
        *,
        samples: Annotated[int, Count()] = 10,
        temperature: Annotated[float, Positive()] = 0.7,
        max_new_tokens: Annotated[int, Count()] = 512,
        seed: Annotated[int, Count(0)] = 42,
    ) -> None:
        super().__init__(max_new_tokens=max_new_tokens)
        self.samples = samples
        self.temperature = temperature
        self.seed = seed

    @property
    def decoding(self) -> Decoding:
        return Decoding(self.samples, float(self.temperature), self.max_new_tokens, self.seed)

    def draws(self, replies: Replies) -> Ints | None:
        return self._each(replies) if self.samples > 1 else None
