"""How an answer is decided: arithmetic on stored evidence, numpy only.

A method is one class in one file (see `base.Method`) and one line in `registry.METHODS`, or in another package an entry point of
the group `lad_eval.methods`; `conformance` holds the laws it must keep.

registry.py    the methods and their parts by name
compose.py     names of several parts, and the method that they make
resolve.py     from the names of users and stored runs to methods
"""

from lad_eval.methods.base import Method, MethodWarning, NotCalibratedError
from lad_eval.methods.compose import part_names
from lad_eval.methods.condition import PLAIN, Condition
from lad_eval.methods.lad import LAD, NoVisualSignalWarning, UnlabelledLAD
from lad_eval.methods.orders import Majority, OverOrders, PermutationAverage, RandomAverage, Vanilla
from lad_eval.methods.pride import PriDe, PriDeOriginal
from lad_eval.methods.readout import FewLayersWarning, PurifiedAttention, RawAttention
from lad_eval.methods.registry import DEFAULT_METHODS, METHODS, NamedMethod, method_names, named, names_of
from lad_eval.methods.replying import ChainOfThought, Generate, SelfConsistency
from lad_eval.methods.resolve import (
    canonical_name,
    describe_method,
    is_method,
    make_method,
    parse_setting,
    resolve_methods,
    stored_name,
    with_parameters,
    with_stored,
)
from lad_eval.parameters import LayerRange, ParameterError

__all__ = [
    "DEFAULT_METHODS",
    "LAD",
    "METHODS",
    "PLAIN",
    "ChainOfThought",
    "Condition",
    "FewLayersWarning",
    "Generate",
    "LayerRange",
    "Majority",
    "Method",
    "MethodWarning",
    "NamedMethod",
    "NoVisualSignalWarning",
    "NotCalibratedError",
    "OverOrders",
    "ParameterError",
    "PermutationAverage",
    "PriDe",
    "PriDeOriginal",
    "PurifiedAttention",
    "RandomAverage",
    "RawAttention",
    "SelfConsistency",
    "UnlabelledLAD",
    "Vanilla",
    "canonical_name",
    "describe_method",
    "is_method",
    "make_method",
    "method_names",
    "named",
    "names_of",
    "parse_setting",
    "part_names",
    "resolve_methods",
    "stored_name",
    "with_parameters",
    "with_stored",
]
