"""Interventions: changes of a model's forward pass under which evidence can be collected. No torch here until one is applied.

To add one: a frozen dataclass derived from `Intervention` (`CalibratedIntervention` if it learns) with a `name`, its parameters
as fields, and `_attached`, which opens hooks of `lad_eval.attention.hooks`; and a line in `INTERVENTIONS`.

base.py        what an intervention is; several at once
learned.py     what one learned from calibration samples
parameters.py  parameters parsed by their annotations
sofa.py        soft attention between images
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lad_eval.attention.interventions.base import (
    CalibratedIntervention,
    Intervention,
    JoinedIntervention,
    join_interventions,
)
from lad_eval.attention.interventions.learned import LearnedState
from lad_eval.attention.interventions.parameters import parameter_defaults, parse_parameters
from lad_eval.attention.interventions.sofa import Sofa
from lad_eval.errors import UnknownNameError, UserError

INTERVENTIONS: Mapping[str, type[Intervention]] = MappingProxyType({"sofa": Sofa})


def parse_intervention(text: str) -> Intervention:
    """The intervention that a text such as "sofa" or "sofa:sigma=0.3:every=4" names.

    Raises:
        UnknownNameError: no intervention has the name.
        UserError: it has no such parameter, or it cannot have this value.
    """
    name, *settings = text.split(":")
    if name not in INTERVENTIONS:
        raise UnknownNameError("intervention", name, INTERVENTIONS)
    kind = INTERVENTIONS[name]
    known = parameter_defaults(kind)
    written: dict[str, str] = {}
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if key not in known:
            raise UserError(
                f"{name} has no parameter {key!r}; write {name}:{next(iter(known))}=value. Its parameters are {', '.join(known)}."
            )
        if not equals:
            raise UserError(f"{key} of {name} has no value; write {name}:{key}={known[key]}.")
        if key in written:
            raise UserError(f"{text!r} gives {key} twice.")
        written[key] = value
    return kind(**parse_parameters(kind, written))


__all__ = [
    "INTERVENTIONS",
    "CalibratedIntervention",
    "Intervention",
    "JoinedIntervention",
    "LearnedState",
    "Sofa",
    "join_interventions",
    "parse_intervention",
]
