"""Free-text replies of a model as a table, and the settings they were generated with."""

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

UNPARSABLE = -1
"""Position of a reply without an answer: wrong, counted separately, never consistent."""


@dataclass(frozen=True)
class Decoding:
    """Generation settings of replies.

    Attributes:
        samples: number of replies per request.
        temperature: 0: greedy; above 0: sampled from softmax(logits / temperature).
        max_new_tokens: maximum length of a reply in tokens.
        seed: of sampling; the seed, the request and the reply's number determine a reply, whatever else is in the batch.
    """

    samples: int = 1
    temperature: float = 0.0
    max_new_tokens: int = 16
    seed: int = 42

    @property
    def slug(self) -> str:
        """The decoding in a file name: "greedy-16", "sampled-10-t0.7-512-s42"."""
        if not self.temperature:
            return f"greedy-{self.max_new_tokens}"
        return f"sampled-{self.samples}-t{self.temperature:g}-{self.max_new_tokens}-s{self.seed}"

    def document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Reply:
    """The replies to one request.

    Attributes:
        texts: one per sample.
        forward_passes: decoder passes for all of them, one per generated token including the end of the reply;
            UNKNOWN_PASSES if the model does not report them.
        seconds: wall-clock time in seconds, the request's share of its batches.
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
        fingerprint: what produced the rows.
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
    """A row as a JSON object: everything that a decision needs without the data and the model."""
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
