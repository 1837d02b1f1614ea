"""Interventions: changes of a model's forward pass under which evidence can be collected. No torch here until one is applied.

To add one: a frozen dataclass derived from `Intervention` (`CalibratedIntervention` if it learns) with a `name`, its parameters
as fields, and `_attached`, which opens hooks of `lad_eval.attention.hooks`; and a line in `INTERVENTIONS`, or in another package
an entry point of the group `lad_eval.interventions`. See docs/add-a-method.md.

base.py      base classes, and several interventions joined
learned.py   the state learned from calibration samples
sofa.py      soft attention between images
knockout.py  text does not attend to visual tokens
"""

from __future__ import annotations

from lad_eval.attention.interventions.base import (
    LEARNED,
    CalibratedIntervention,
    Intervention,
    JoinedIntervention,
    join_interventions,
)
from lad_eval.attention.interventions.learned import LearnedState
from lad_eval.attention.interventions.sofa import Sofa
from lad_eval.names import Part, parse_parts
from lad_eval.parameters import fields_of, parse_values
from lad_eval.registry import Registry


def _accepted(name: str, value: object) -> type[Intervention]:
    if not (isinstance(value, type) and issubclass(value, Intervention)):
        raise TypeError(f"the intervention {name!r} must be a class derived from lad_eval.attention.interventions.Intervention")
    if value.name != name:  # names of methods contain it
        raise TypeError(f"the intervention {name!r} must have this `name`, not {value.name!r}")
    fields_of(value)  # refuses a parameter whose annotation does not say which values are allowed
    return value


INTERVENTIONS: Registry[type[Intervention]] = Registry(
    "intervention",
    {
        "sofa": Sofa,
        "capl": "lad_eval.attention.cross_image.capl:Capl",
        "truncated": "lad_eval.attention.cross_image.truncated:Truncated",
        "delimiter-scaling": "lad_eval.attention.cross_image.delimiter_scaling:DelimiterScaling",
        "tied": "lad_eval.attention.cross_image.tied:Tied",
        "pine": "lad_eval.attention.cross_image.pine:Pine",
        "knockout": "lad_eval.attention.interventions.knockout:Knockout",
        "fastv": "lad_eval.attention.pruning.fastv:FastV",
        "pyramiddrop": "lad_eval.attention.pruning.pyramiddrop:PyramidDrop",
        "sparsevlm": "lad_eval.attention.pruning.sparsevlm:SparseVLM",
        "sparsevlm-plus": "lad_eval.attention.pruning.sparsevlm:SparseVLMPlus",
        "himap": "lad_eval.attention.pruning.himap:HiMAP",
        "tokencarve": "lad_eval.attention.pruning.tokencarve:TokenCarve",
        "random-tokens": "lad_eval.attention.pruning.random_tokens:RandomTokens",
    },
    group="lad_eval.interventions",
    accept=_accepted,
)


def parse_intervention(text: str) -> Intervention:
    """The intervention that a text such as "sofa" or "sofa(sigma=0.3, every=4)" names; several are joined by "+".

    Raises:
        UnknownNameError: no intervention has the name.
        UserError: it has no such parameter, or it cannot have this value.
    """
    made = join_interventions([make_intervention(part) for part in parse_parts(text)])
    assert made is not None  # a text has at least one part
    return made


def make_intervention(part: Part) -> Intervention:
    """The intervention of a part of a name; errors as `parse_intervention`."""
    kind = INTERVENTIONS[part.name]
    return kind(**parse_values(part.name, fields_of(kind), part.settings))


__all__ = [
    "INTERVENTIONS",
    "LEARNED",
    "CalibratedIntervention",
    "Intervention",
    "JoinedIntervention",
    "LearnedState",
    "Sofa",
    "join_interventions",
    "make_intervention",
    "parse_intervention",
]
