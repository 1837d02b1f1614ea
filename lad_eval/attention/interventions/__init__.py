"""Interventions: changes of a model's attention under which evidence can be collected. No torch here until one is applied.

To add one: a frozen dataclass with a `name`, its parameters as fields, and `applied`; and a line in `INTERVENTIONS`, or in
another package an entry point of the group `lad_eval.interventions`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args

from lad_eval.errors import UserError
from lad_eval.names import Part, parse_parts, spell
from lad_eval.registry import Registry

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
        """The name, and the parameters that are not the defaults: "sofa", "sofa(sigma=0.3)"."""

    def applied(self, model: Any, spans: Spans) -> AbstractContextManager[None]:
        """Open while the model reads the prompts that `spans` belongs to.

        Raises:
            UnsupportedModelError: the model's attention cannot be changed in this way; or, as the context closes, nothing was
                changed, so that the answers would be the unchanged model's under another name.
        """


@dataclass(frozen=True)
class Named:
    """The facts and the label of a frozen dataclass whose fields are its parameters, all with defaults."""

    name: ClassVar[str]

    @property
    def facts(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}

    @property
    def label(self) -> str:
        own = fields(self)
        return spell(self.name, {f.name: getattr(self, f.name) for f in own if getattr(self, f.name) != f.default})


@dataclass(frozen=True)
class JoinedIntervention:
    """Several interventions at once, in written order: the first is opened first."""

    parts: tuple[Intervention, ...]
    name: ClassVar[str] = "joined"

    @property
    def facts(self) -> dict[str, Any]:
        return {"name": "+".join(part.name for part in self.parts), "parts": [part.facts for part in self.parts]}

    @property
    def label(self) -> str:
        return "+".join(part.label for part in self.parts)

    @contextmanager
    def applied(self, model: Any, spans: Spans) -> Iterator[None]:
        """As of each part; a part that changed nothing is an error, whatever the others did."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.applied(model, spans))
            yield


def join_interventions(parts: Sequence[Intervention]) -> Intervention | None:
    """One intervention that does what all of them do, in their order; None of none."""
    return JoinedIntervention(tuple(parts)) if len(parts) > 1 else next(iter(parts), None)


Pairs = Literal["between", "all"]


@dataclass(frozen=True)
class Sofa(Named):
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


def _accepted(name: str, value: object) -> type[Any]:
    if not (isinstance(value, type) and is_dataclass(value) and hasattr(value, "applied")):
        raise TypeError(f"the intervention {name!r} must be a frozen dataclass with `name`, `facts`, `label` and `applied`")
    return value


INTERVENTIONS: Registry[type[Any]] = Registry("intervention", {"sofa": Sofa}, group="lad_eval.interventions", accept=_accepted)


def parse_intervention(text: str) -> Intervention:
    """The intervention that a text such as "sofa" or "sofa(sigma=0.3, every=4)" names.

    Raises:
        UnknownNameError: no intervention has the name.
        UserError: it has no such parameter, or it cannot have this value.
    """
    made = join_interventions([make_intervention(part) for part in parse_parts(text)])
    assert made is not None  # a text has one part at least
    return made


def make_intervention(part: Part) -> Intervention:
    """The intervention of a part of a name; errors as `parse_intervention`."""
    kind = INTERVENTIONS[part.name]
    known: dict[str, Any] = {f.name: f.default for f in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in part.settings.items():
        if key not in known:
            has = f"Its parameters are {', '.join(known)}." if known else "It has no parameters."
            raise UserError(f"{part.name} has no parameter {key!r}. {has}")
        try:
            values[key] = type(known[key])(value)
        except ValueError:
            raise UserError(f"{key} of {part.name} must be of the kind of {known[key]!r}, not {value!r}.") from None
    made: Intervention = kind(**values)
    return made
