"""A request: what is put to a model once."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from lad_eval.tasks.permutation import Permutation
from lad_eval.tasks.sample import ImageSource, Sample, Split, showing


@dataclass(frozen=True)
class Request:
    """Images in displayed order, the question after them, and the candidates' names.

    The answer is a position. `key` is a digest of the content, so that equal questions are asked once. `caption` is what of the
    question comes from the data and not from the task's wording; None: nobody says it.
    """

    sample_id: str
    permutation: Permutation
    images: tuple[ImageSource, ...]
    question: str
    identifiers: tuple[str, ...]
    gold_position: int
    split: Split
    caption: str | None = None

    @classmethod
    def of(cls, sample: Sample, permutation: Permutation, question: str, identifiers: tuple[str, ...]) -> Request:
        return cls(
            sample_id=sample.id,
            permutation=permutation,
            images=permutation.apply(sample.images),
            question=question,
            identifiers=identifiers,
            gold_position=permutation.position_of(sample.gold),
            split=sample.split,
            caption=sample.caption,
        )

    @cached_property
    def key(self) -> str:
        """SHA-256 hex digest, 32 characters, of sample id, displayed images, question and identifiers."""
        with showing(self.sample_id):
            content = [self.sample_id, [i.digest for i in self.images], self.question, list(self.identifiers)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
