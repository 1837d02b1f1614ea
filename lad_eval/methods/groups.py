"""Named sets of methods, and what distinguishes their members: what a method reads and what it needs besides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Literal, get_args

from lad_eval.methods.base import Method
from lad_eval.tasks.plan import RANDOM_ORDERS

Group = Literal["logits", "attention", "several passes", "replies"]
GROUPS: tuple[Group, ...] = get_args(Group)
TEST_SET = "test set"
"""Among the needs of a transductive method."""

METHOD_SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "field": (
            "vanilla",
            "instruction",
            "pride",
            "cc",
            "capcal",
            "sofa",
            "delimiter-scaling",
            "attention-sorting",
            "icr",
            "purified-attention",
            "lad",
            "tied+attention-sorting",
            "pine+attention-sorting",
            "permutation-average",
        ),
    }
)
"""Names that stand for several methods: `field` is what LAD should be compared with, group by group."""


def members_of(names: Iterable[str]) -> Iterator[str]:
    """The names, those of sets replaced by their members."""
    for name in names:
        yield from METHOD_SETS.get(name, (name,))


def group_of(method: Method) -> Group:
    """What a method's answer is read from; a method that reads attention besides the logits counts as one of attention."""
    if method.orders != "identity":
        return "several passes"
    if "replies" in method.needs:
        return "replies"
    return "attention" if "attention" in method.needs else "logits"


def needs_of(method: Method) -> tuple[str, ...]:
    """What a method needs besides one pass over each question.

    "labels": calibration samples whose right images are known; "calibration": calibration samples alone; "probes"; "test set": an
    answer depends on the other evaluated questions; or the number of passes over other orders.
    """
    needs = []
    if method.calibrates or method.condition.learns:
        needs.append("labels" if method.learner.reads_right_images else "calibration")
    if method.probes or method.calibration_probes:
        needs.append("probes")
    if method.transductive:
        needs.append(TEST_SET)
    if method.orders != "identity":
        needs.append("N passes" if method.orders == "cyclic" else f"{method.most_orders or RANDOM_ORDERS} passes")
    return tuple(needs)
