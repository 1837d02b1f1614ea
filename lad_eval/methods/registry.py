"""The methods and their parts by name, and the kind of each part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from lad_eval.methods.base import Method
from lad_eval.methods.batch_calibration import BatchCalibration
from lad_eval.methods.capcal import CapCal
from lad_eval.methods.cc import ContextualCalibration
from lad_eval.methods.evidence_method import EvidenceMethod
from lad_eval.methods.icr import ICR
from lad_eval.methods.icr_masked import MaskedICR
from lad_eval.methods.lad import LAD, UnlabelledLAD
from lad_eval.methods.orders import Majority, OrdersMethod, OverOrders, PermutationAverage, RandomAverage, Vanilla
from lad_eval.methods.pride import PriDe, PriDeOriginal
from lad_eval.methods.readout import PurifiedAttention, RawAttention
from lad_eval.methods.replying import ChainOfThought, Generate, ReplyMethod, SelfConsistency
from lad_eval.registry import Registry

Kind = Literal["evidence", "protocol", "orders", "replies"]
"""Kinds of parts: a decision from evidence, other authors' protocol on evidence, orders, a decision from replies."""

_CLASSES: Mapping[Kind, tuple[type[Method], ...]] = {
    "evidence": (EvidenceMethod, OrdersMethod),
    "protocol": (EvidenceMethod, OrdersMethod),
    "orders": (OverOrders,),
    "replies": (ReplyMethod,),
}


class NamedMethod(NamedTuple):
    """The meaning of a method's name.

    Attributes:
        method: its class.
        preset: parameters that the name sets; the rest are the class's defaults.
        summary: one line for lists.
        kind: of part.
    """

    method: type[Method]
    preset: Mapping[str, Any]
    summary: str
    kind: Kind


def named(method: type[Method], summary: str = "", *, kind: Kind | None = None, **preset: Any) -> NamedMethod:
    """The meaning of a name: a class with other parameters than its defaults, or as another kind of part.

    Args:
        method: its class.
        summary: one line for lists; default: the first line of the class's docstring.
        kind: of part; default: a decision, from replies if the class is a `ReplyMethod`.
        preset: parameters by name.
    """
    line, *_ = (summary or method.__doc__ or "").strip().splitlines() or [method.__name__]
    usual: Kind = "replies" if issubclass(method, ReplyMethod) else "evidence"
    return NamedMethod(method, MappingProxyType(preset), line, kind or usual)


def _accepted(name: str, value: object) -> NamedMethod:
    if "_" in name:
        raise TypeError(f"the method {name!r} must be named with hyphens, {name.replace('_', '-')!r}, as names are read so")
    entry = named(value) if isinstance(value, type) and issubclass(value, Method) else value
    if not isinstance(entry, NamedMethod):
        raise TypeError(f"the method {name!r} must be a subclass of lad_eval.methods.Method; interventions need an entry point")
    if entry.kind not in get_args(Kind):
        raise TypeError(f"the kind of the method {name!r} must be {' or '.join(map(repr, get_args(Kind)))}, not {entry.kind!r}")
    if not issubclass(entry.method, _CLASSES[entry.kind]):
        what = "orders" if entry.kind == "orders" else "method"
        raise TypeError(f"the {what} {name!r} must be a subclass of lad_eval.methods.{_CLASSES[entry.kind][0].__name__}")
    return entry


METHODS: Registry[NamedMethod] = Registry(
    "method",
    {
        "vanilla": named(Vanilla),
        "pride": named(PriDe),
        "lad": named(LAD),
        "lad-paper": named(
            LAD,
            "LAD with the equations as printed: all layers, no delimiters, means of logs and probabilities as in the paper.",
            layers="all",
            attention_mean="log",
            bias_mean="probability",
            mixture="probability",
            span="image",
        ),
        "lad-unlabelled": named(UnlabelledLAD),
        "raw-attention": named(RawAttention),
        "attention-sorting": named(
            RawAttention,
            "The image with the most attention, summed over all layers and heads.",
            top_k="all",
            layers="all",
            span="image",
        ),
        "purified-attention": named(PurifiedAttention),
        "cc": named(ContextualCalibration),
        "capcal": named(CapCal),
        "icr": named(ICR),
        "icr-masked": named(MaskedICR),
        "permutation-average": named(PermutationAverage),
        "pride-original": named(PriDeOriginal, kind="protocol"),
        "batch-calibration": named(BatchCalibration, kind="protocol"),
        "average-cyclic": named(
            PermutationAverage,
            "Averaged over the N cyclic shifts: permutation-average, over any decision.",
            kind="orders",
        ),
        "average-random": named(RandomAverage, kind="orders"),
        "majority": named(Majority, kind="orders"),
        "generate": named(Generate),
        "cot": named(ChainOfThought),
        "self-consistency": named(SelfConsistency),
    },
    group="lad_eval.methods",
    accept=_accepted,
)
"""Methods and parts of methods, in the order of the tables; those of other packages follow."""

DEFAULT_METHODS = ("vanilla", "pride", "lad", "raw-attention", "attention-sorting", "purified-attention")
"""What a run compares by default: one forward pass serves all of them; averaging over orders would cost N."""


def names_of(kind: Kind) -> Iterator[str]:
    """Names of the parts of a kind, in the order of the tables; a package that does not load is left out, with a warning."""
    yield from (name for name in METHODS.usable() if METHODS[name].kind == kind)


def method_names() -> tuple[str, ...]:
    """Names of the methods that decide from evidence of the unchanged question and model, in the order of the tables."""
    return tuple(names_of("evidence"))
