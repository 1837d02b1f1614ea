"""The figures that other harnesses report of replies: shares from 0 to 1, per sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lad_eval.methods.replying import parse_reply
from lad_eval.metrics import UNPARSABLE, figures
from lad_eval.plugins.documents import Document

SAMPLE_METRICS = {"acc": True, "consistency": True, "flip": False, "unparsable": False}
"""The figures of a sample, and whether higher is better."""


def position_of(document: Document, reply: str) -> int:
    """The 0-based displayed position that a reply names; UNPARSABLE if it does not name exactly one."""
    position = parse_reply(reply, document["identifiers"])
    return UNPARSABLE if position is None else position


def score_sample(documents: Sequence[Document], positions: Sequence[int]) -> dict[str, float]:
    """The figures of one sample under its T displayed orders.

    Their means over samples are the task's figures, and the standard errors of these means are clustered by sample.

    Args:
        documents: of the sample's displayed orders.
        positions: the answers, see `position_of`.

    Returns:
        `acc`, the share of right answers; `unparsable`, the share of replies without an answer; and with several orders
        `consistency`, 1 where all their answers name one image, and `flip`, its opposite.
    """
    orders = len(documents)
    shown = list(zip(documents, positions, strict=True))
    scores = {
        "acc": sum(position == document["gold"] for document, position in shown) / orders,
        "unparsable": sum(position == UNPARSABLE for position in positions) / orders,
    }
    if orders > 1:  # one order is consistent with itself
        chosen = {None if position == UNPARSABLE else document["order"][position] for document, position in shown}
        consistent = float(len(chosen) == 1 and None not in chosen)
        scores |= {"consistency": consistent, "flip": 1.0 - consistent}
    return scores


def answers_table(documents: Sequence[Document], positions: Sequence[int]) -> str:
    """A sample's displayed orders, images by their numbers in the data, with the right answer and the given one; Markdown."""
    lines = ["| displayed order | right | answered |", "|---|---|---|"]
    for document, position in zip(documents, positions, strict=True):
        order, right = " ".join(map(str, document["order"])), document["identifiers"][document["gold"]]
        lines.append(f"| {order} | {right} | {name_of(document, position)} |")
    return "\n".join(lines)


def name_of(document: Document, position: int) -> str:
    """The identifier of a displayed position, "-" for none."""
    return "-" if position == UNPARSABLE else str(document["identifiers"][position])


def rstd(gold: Sequence[int], positions: Sequence[int], candidates: int) -> float:
    """Standard deviation of the recall over N positions, from all answers; NaN if the right ones are at fewer than two."""
    return figures.rstd(np.asarray(gold, dtype=np.int64), np.asarray(positions, dtype=np.int64), candidates) / 100
