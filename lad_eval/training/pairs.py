"""Pairs of chosen and rejected answers, and their balance over positions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.errors import DataError, UserError
from lad_eval.files.documents import read_json, write_json
from lad_eval.tasks.request import Permutation

PAIRS = "pairs.json"
_FORMAT = 2
_SHARE, _MOST = 3, 0.75
"""A (chosen, rejected) position may have up to this many times its even share of the pairs, and at most this share."""


@dataclass(frozen=True)
class AnswerPair:
    """A preferred and a rejected answer to one displayed order of a sample.

    Attributes:
        task: name of the task.
        sample_id: of a training sample.
        order: the displayed order of the sample's images.
        key: of the request.
        chosen: position that the right answer names.
        rejected: position that the wrong answer names.
    """

    task: str
    sample_id: str
    order: tuple[int, ...]
    key: str
    chosen: int
    rejected: int

    @property
    def permutation(self) -> Permutation:
        return Permutation(self.order)


@dataclass(frozen=True)
class PairSet:
    """Pairs with the same number of candidates, and their origin.

    Attributes:
        pairs: in the order in which they were found.
        candidates: N.
        made_from: JSON-serialisable: model, tasks and both attentions.
        requests: number of requests that were run under both attentions.
        limit: maximum number of training samples per task.
        unbalanced: whether an unbalanced set was requested.
    """

    pairs: tuple[AnswerPair, ...]
    candidates: int
    made_from: Mapping[str, Any]
    requests: int
    limit: int
    unbalanced: bool = False

    @property
    def counts(self) -> list[list[int]]:
        """Int[N, N]: pairs by the position of the chosen answer and, across, of the rejected one."""
        return position_counts(self.pairs, self.candidates)

    def save(self, folder: Path) -> None:
        """Writes the set into a folder.

        Raises:
            OSError: it cannot be written.
        """
        document = {
            "format": _FORMAT,
            "candidates": self.candidates,
            "made_from": dict(self.made_from),
            "requests": self.requests,
            "limit": self.limit,
            "unbalanced": self.unbalanced,
            "counts": self.counts,
            "pairs": [asdict(pair) for pair in self.pairs],
        }
        write_json(folder / PAIRS, document)

    @classmethod
    def load(cls, folder: Path) -> PairSet:
        """Reads a set that `save` wrote.

        Raises:
            UserError: it is missing, damaged or of another version.
        """
        document = read_json(
            folder / PAIRS, what="chosen and rejected answers", cure="Make it with `lad-eval capl answers`.", error=DataError
        )
        if document.get("format") != _FORMAT:
            raise DataError(f"{folder / PAIRS} was written by another version of lad_eval; make it again in another folder.")
        try:
            pairs = tuple(AnswerPair(**{**pair, "order": tuple(pair["order"])}) for pair in document["pairs"])
            fields = [document[name] for name in ("candidates", "made_from", "requests", "limit", "unbalanced")]
            made = cls(pairs, *fields)
            places = {place for pair in pairs for place in (pair.chosen, pair.rejected)}
            sound = places <= set(range(made.candidates)) and all(pair.permutation for pair in pairs)
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise DataError(f"{folder / PAIRS} does not hold pairs; make them with `lad-eval capl answers`.")
        return made


def position_counts(pairs: Iterable[AnswerPair], n: int) -> list[list[int]]:
    """Int[N, N]: pairs by the position of the chosen answer and, across, of the rejected one."""
    cells = Counter((pair.chosen, pair.rejected) for pair in pairs)
    return [[cells[chosen, rejected] for rejected in range(n)] for chosen in range(n)]


def counts_table(counts: Sequence[Sequence[int]]) -> str:
    """`position_counts` as text, one row for each chosen position."""
    names = range(1, len(counts) + 1)
    lines = ["chosen \\ rejected " + "".join(f"{name:>6}" for name in names)]
    return "\n".join(
        [*lines, *(f"{name:>17} " + "".join(f"{n:>6}" for n in row) for name, row in zip(names, counts, strict=True))]
    )


def quota(wanted: int, n: int) -> int:
    """Pairs per (chosen, rejected) position: equal for all N (N - 1) of them, and at least `wanted` in all."""
    return -(-wanted // (n * (n - 1)))


def balanced(pairs: Iterable[AnswerPair], most: int) -> tuple[AnswerPair, ...]:
    """The first pairs of each (chosen, rejected) position, at most `most` of each."""
    seen: Counter[tuple[int, int]] = Counter()
    chosen = []
    for pair in pairs:
        cell = (pair.chosen, pair.rejected)
        seen[cell] += 1
        if seen[cell] <= most:
            chosen.append(pair)
    return tuple(chosen)


def check_balance(pairs: Sequence[AnswerPair], n: int) -> None:
    """Refuses pairs that would teach positions.

    On a model with a position bias the answers under two attentions differ in few ways; trained on pairs that mostly prefer
    one position to another, it learns that position.

    Raises:
        DataError: there are none, or one (chosen, rejected) position holds more than 3 / (N (N - 1)) of them.
    """
    if not pairs:
        raise DataError(
            "No pair was found: no answer is right under fused attention and wrong under truncated attention; give more samples "
            "(--limit) or another task."
        )
    (chosen, rejected), most = Counter((pair.chosen, pair.rejected) for pair in pairs).most_common(1)[0]
    allowed = min(_MOST, _SHARE / (n * (n - 1)))
    if most > allowed * len(pairs):
        raise DataError(
            f"{most} of {len(pairs)} pairs prefer position {chosen + 1} to position {rejected + 1}, more than the "
            f"{100 * allowed:.0f} % that a balanced set may have; give more samples (--limit), or --unbalanced to keep them."
        )


def check_pair_count(wanted: int) -> None:
    """Refuses a number of pairs that is not positive.

    Raises:
        UserError: it is not.
    """
    if wanted < 1:
        raise UserError(f"The number of pairs must be at least 1, not {wanted}.")


def check_made_with(pairs: PairSet, fingerprint: Mapping[str, Any]) -> None:
    """Refuses pairs of another model's answers.

    Raises:
        DataError: the weights or the adapter that answered are not those of the fingerprint.
    """
    model = pairs.made_from["model"]
    if any(model.get(name) != fingerprint.get(name) for name in ("weights", "adapter")):
        raise DataError(
            f"The pairs are answers of {model.get('model')}, not of these weights of {fingerprint['model']}; make "
            "others with `lad-eval capl answers`."
        )


def attention_of(pairs: PairSet) -> Capl:
    """The attention of the chosen answers, under which a model is trained on the pairs."""
    facts = pairs.made_from["chosen"]
    return Capl(**{name: value for name, value in facts.items() if name != "name"})
