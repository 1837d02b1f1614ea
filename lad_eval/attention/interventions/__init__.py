"""Interventions: changes of a model's attention under which evidence can be collected. No torch here until one is applied.

To add one: a frozen dataclass with a `name`, its parameters as fields, and `applied`; and a line in `INTERVENTIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args, get_origin, get_type_hints

from lad_eval.errors import UnknownNameError, UserError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lad_eval.attention.spans import Spans


class Intervention(Protocol):
    """A change of attention, with all that determines it."""

    name: ClassVar[str]

    @property
    def facts(self) -> dict[str, Any]:
        """JSON-serialisable: the name and every parameter. Part of the evidence's fingerprint."""

    @property
    def label(self) -> str:
        """The name, and the parameters that are not the defaults: "sofa", "sofa:sigma=0.3"."""

    def applied(self, model: Any, spans: Spans) -> AbstractContextManager[None]:
        """Open while the model reads the prompts that `spans` belongs to.

        Raises:
            UnsupportedModelError: the model's attention cannot be changed in this way; or, as the context closes, nothing was
                changed, so that the answers would be the unchanged model's under another name.
        """


@dataclass(frozen=True)
class _Named:
    name: ClassVar[str]

    @property
    def facts(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}

    @property
    def label(self) -> str:
        changed = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return ":".join([self.name, *changed])


Pairs = Literal["between", "all"]


@dataclass(frozen=True)
class Sofa(_Named):
    """Soft attention between images: on every n-th layer that attends each image may look at the later ones a little.

    Source: Tian et al. 2025 (SoFA). The entries of the attention mask that are causally blocked and lead from a token of one
    image to a token of another are let in with log(sigma) added to their scores. No calibration.

    Args:
        sigma: in (0, 1]; the less, the nearer to the model as it is.
        every: every how many-th of the decoder layers that attend, the first of them included. Where all layers attend these
            are the layers 0, n, 2 n, ...; linear-attention layers are not counted.
        pairs: "between" opens what leads from one image to another; "all" also what leads to later tokens of the same image, as
            the released code of LAD does (github.com/brightXian/LAD, c704b9d).

    Raises:
        UserError: a parameter cannot have its value.
    """

    name: ClassVar[str] = "sofa"
    sigma: float = 0.5
    every: int = 2
    pairs: Pairs = "between"

    def __post_init__(self) -> None:
        if not (isinstance(self.sigma, float | int) and math.isfinite(self.sigma) and 0 < self.sigma <= 1):
            raise UserError(f"sigma of sofa must be above 0 and at most 1, not {self.sigma!r}.")
        if not isinstance(self.every, int) or self.every < 1:
            raise UserError(f"every of sofa must be a whole number of at least 1, not {self.every!r}.")
        if self.pairs not in get_args(Pairs):
            raise UserError(f"pairs of sofa must be 'between' or 'all', not {self.pairs!r}.")

    @contextmanager
    def applied(self, model: Any, spans: Spans) -> Iterator[None]:
        from lad_eval.attention.interventions.sofa import soften

        with soften(model, spans, sigma=self.sigma, every=self.every, pairs=self.pairs):
            yield


INTERVENTIONS: Mapping[str, type[Any]] = MappingProxyType({"sofa": Sofa})


def parse_as(annotation: Any, text: str) -> Any:
    """The value of a field so annotated that a text writes; `bool("false")` would be true.

    Raises:
        ValueError: the text writes no such value.
    """
    if annotation is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    return text if get_origin(annotation) is Literal else annotation(text)


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
    known: dict[str, Any] = {f.name: f.default for f in fields(kind)}
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        if key not in known:
            raise UserError(
                f"{name} has no parameter {key!r}; write {name}:{next(iter(known))}=value. Its parameters are {', '.join(known)}."
            )
        if not equals:
            raise UserError(f"{key} of {name} has no value; write {name}:{key}={known[key]}.")
        if key in values:
            raise UserError(f"{text!r} gives {key} twice.")
        try:
            values[key] = parse_as(get_type_hints(kind)[key], value)
        except ValueError:
            raise UserError(f"{key} of {name} must be of the kind of {known[key]!r}, not {value!r}.") from None
    made: Intervention = kind(**values)
    return made
