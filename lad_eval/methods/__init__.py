"""How an answer is decided: arithmetic on stored evidence, numpy only.

A method is one class in one file (see `EvidenceMethod`) and one line in `registry.METHODS`, or in another package an entry point
of the group `lad_eval.methods`; `conformance` holds the laws it must keep.

base.py               the base class of methods
evidence_method.py    methods that score rows of evidence: scikit-learn's contract
orders.py             methods over several displayed orders
replying.py           methods that read replies
groups.py             named sets of methods, what a method reads and needs
registry.py           the methods and their parts by name
compose.py            names of several parts, and the method that they make
resolve.py            from names in commands and stored runs to methods
"""

from lad_eval.methods.base import Method, MethodWarning, NotCalibratedError
from lad_eval.methods.compose import part_names
from lad_eval.methods.condition import PLAIN, Condition
from lad_eval.methods.evidence_method import EvidenceMethod
from lad_eval.methods.groups import GROUPS, METHOD_SETS, group_of, needs_of
from lad_eval.methods.lad import LAD, NoVisualSignalWarning, UnlabelledLAD
from lad_eval.methods.orders import Majority, OrdersMethod, OverOrders, PermutationAverage, RandomAverage, Vanilla
from lad_eval.methods.pride import PriDe, PriDeOriginal
from lad_eval.methods.readout import FewLayersWarning, PurifiedAttention, RawAttention
from lad_eval.methods.registry import DEFAULT_METHODS, METHODS, NamedMethod, method_names, named, names_of
from lad_eval.methods.replying import ChainOfThought, Generate, ReplyMethod, SelfConsistency
from lad_eval.methods.resolve import (
    canonical_name,
    describe_method,
    is_method,
    make_evidence_method,
    make_method,
    parse_setting,
    resolve_methods,
    set_members,
    stored_name,
    with_parameters,
    with_stored,
)
from lad_eval.parameters import LayerRange, ParameterError

__all__ = [
    "DEFAULT_METHODS",
    "GROUPS",
    "LAD",
    "METHODS",
    "METHOD_SETS",
    "PLAIN",
    "ChainOfThought",
    "Condition",
    "EvidenceMethod",
    "FewLayersWarning",
    "Generate",
    "LayerRange",
    "Majority",
    "Method",
    "MethodWarning",
    "NamedMethod",
    "NoVisualSignalWarning",
    "NotCalibratedError",
    "OrdersMethod",
    "OverOrders",
    "ParameterError",
    "PermutationAverage",
    "PriDe",
    "PriDeOriginal",
    "PurifiedAttention",
    "RandomAverage",
    "RawAttention",
    "ReplyMethod",
    "SelfConsistency",
    "UnlabelledLAD",
    "Vanilla",
    "canonical_name",
    "describe_method",
    "group_of",
    "is_method",
    "make_evidence_method",
    "make_method",
    "method_names",
    "named",
    "names_of",
    "needs_of",
    "parse_setting",
    "part_names",
    "resolve_methods",
    "set_members",
    "stored_name",
    "with_parameters",
    "with_stored",
]
