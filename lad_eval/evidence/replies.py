"""Free-text replies: what a model wrote to requests, as a table; and how it was let write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lad_eval.errors import EvidenceError
from lad_eval.evidence.table import Floats, Ints

if TYPE_CHECKING:
    from lad_eval.tasks.request import Request


UNKNOWN_PASSES = -1


@dataclass(frozen=True)
class Decoding:
    """How a reply is written.

    Attributes:
        samples: replies to each request.
        temperature: 0: the most probable token each time; above 0: drawn from softmax(logits / temperature).
        max_new_tokens: the longest reply, in tokens.
        seed: of sampling; the seed, the request and the reply's number determine a reply, whatever else is in the batch.
    """

    samples: int = 1
    temperature: float = 0.0
    max_new_tokens: int = 16
    seed: int = 42

    @property
    def slug(self) -> str:
        """Names the decoding in a file's name: "greedy-16", "sampled-10-t0.7-512-s42"."""
        if not self.temperature:
            return f"greedy-{self.max_new_tokens}"
        return f"sampled-{self.samples}-t{self.temperature:g}-{self.max_new_tokens}-s{self.seed}"

    def document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Reply:
    """What was written to one request.

    Attributes:
        texts: one per sample.
        forward_passes: decoder passes spent on all of them: each token written is one, the end of the reply counted in;
            UNKNOWN_PASSES of a model that does not tell.
        seconds: wall-clock time, the request's share of its batches.
    """

    key: str
    texts: tuple[str, ...]
    forward_passes: int
    seconds: float


@dataclass(frozen=True)
class Replies:
    """n rows, one per request; columns as in `Evidence`.

    Attributes:
        texts: n tuples of replies.
        identifiers: n tuples of N names, in displayed order.
        fingerprint: what made the rows.
    """

    key: npt.NDArray[np.str_]
    sample_id: npt.NDArray[np.str_]
    perm: Ints
    gold_position: Ints
    identifiers: tuple[tuple[str, ...], ...]
    texts: tuple[tuple[str, ...], ...]
    forward_passes: Ints
    seconds: Floats
    fingerprint: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], fingerprint: Mapping[str, Any]) -> Replies:
        """Replies from rows as `row_of` makes them.

        Raises:
            EvidenceError: there are none.
        """
        if not rows:
            raise EvidenceError("There are no replies yet; run the model first.")
        return cls(
            key=np.asarray([row["key"] for row in rows], dtype=np.str_),
            sample_id=np.asarray([row["sample_id"] for row in rows], dtype=np.str_),
            perm=np.asarray([row["perm"] for row in rows], dtype=np.int64),
            gold_position=np.asarray([row["gold_position"] for row in rows], dtype=np.int64),
            identifiers=tuple(tuple(row["identifiers"]) for row in rows),
            texts=tuple(tuple(row["texts"]) for row in rows),
            forward_passes=np.asarray([row["forward_passes"] for row in rows], dtype=np.int64),
            seconds=np.asarray([row["seconds"] for row in rows], dtype=np.float64),
            fingerprint=dict(fingerprint),
        )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def n_candidates(self) -> int:
        return int(self.perm.shape[1])

    def select_keys(self, keys: Sequence[str]) -> Replies:
        """The rows of these request keys, in their order.

        Raises:
            EvidenceError: a key has no row.
        """
        where = {key: row for row, key in reversed(list(enumerate(self.key.tolist())))}
        if missing := sum(key not in where for key in keys):
            raise EvidenceError(f"{missing} of {len(keys)} requests have no reply yet; run the model first.")
        rows = [where[key] for key in keys]
        index = np.asarray(rows, dtype=np.int64)
        return Replies(
            self.key[index],
            self.sample_id[index],
            self.perm[index],
            self.gold_position[index],
            tuple(self.identifiers[row] for row in rows),
            tuple(self.texts[row] for row in rows),
            self.forward_passes[index],
            self.seconds[index],
            self.fingerprint,
        )


def row_of(request: Request, reply: Reply) -> dict[str, Any]:
    """A row as JSON has it: all that deciding needs, so that neither data nor model is needed again."""
    return {
        "key": request.key,
        "sample_id": request.sample_id,
        "perm": list(request.permutation.order),
        "gold_position": request.gold_position,
        "identifiers": list(request.identifiers),
        "texts": list(reply.texts),
        "forward_passes": reply.forward_passes,
        "seconds": reply.seconds,
    }
