"""The conditions of the study: a model and its adapter, each plain, fused, truncated and under a rival."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.attention.cross_image.truncated import Truncated
from lad_eval.attention.interventions import Intervention, parse_intervention
from lad_eval.errors import UserError
from lad_eval.names import spell

Weights = Literal["base", "trained"]
PLAIN = "vanilla"
TRUNCATED = Truncated().label


@dataclass(frozen=True)
class CaplCondition:
    """One row of the tables.

    Attributes:
        weights: the model as it is, or with the adapter.
        method: as runs name it: `vanilla`, or the label of an intervention.
        label: for readers.
    """

    weights: Weights
    method: str
    label: str


@dataclass(frozen=True)
class StudyConditions:
    """What is compared.

    Attributes:
        fused: attention of the rows "fused".
        rival: an intervention to compare with; None: there is none.
        trained: whether there is an adapter.
    """

    fused: Capl
    rival: Intervention | None
    trained: bool

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that each model is run with."""
        return (PLAIN, self.fused.label, TRUNCATED, *([] if self.rival is None else [self.rival.label]))

    @property
    def weights(self) -> tuple[Weights, ...]:
        return ("base", "trained") if self.trained else ("base",)

    @property
    def rows(self) -> tuple[CaplCondition, ...]:
        """All conditions, the unchanged model first."""
        return tuple(
            CaplCondition(weights, method, self._label(weights, method)) for weights in self.weights for method in self.methods
        )

    def row(self, weights: Weights, method: str) -> CaplCondition:
        return CaplCondition(weights, method, self._label(weights, method))

    def _label(self, weights: Weights, method: str) -> str:
        if method == PLAIN:
            return weights
        name = "fused" if method == self.fused.label else method
        return name if weights == "base" else f"trained, {name}"


def parse_fused(text: str | None, trained_under: Mapping[str, Any] | None) -> Capl:
    """The attention of the fused rows.

    Args:
        text: "capl", with parameters if they are not the defaults; None: that of the adapter's training, else "capl".
        trained_under: what an adapter's folder says of its training, facts of an intervention; None: nothing.

    Raises:
        UserError: it is not `capl`.
    """
    if text is None and trained_under is not None:
        text = spell(str(trained_under.get("name")), {key: value for key, value in trained_under.items() if key != "name"})
    made = parse_intervention(Capl.name if text is None else text)
    if not isinstance(made, Capl):
        raise UserError(f"--attention takes capl, with parameters such as capl(rho=0.9), not {text!r}.")
    return made


def parse_rival(text: str, fused: Capl) -> Intervention | None:
    """The intervention to compare with; None for "none".

    Raises:
        UnknownNameError: no intervention has the name.
        UserError: the study has it already, or it learns from calibration samples.
    """
    if text.strip() == "none":
        return None
    made = parse_intervention(text)
    if made.label in (fused.label, TRUNCATED):
        raise UserError(f"--rival {text}: the study has this one already; name another intervention, or none.")
    if not all(member.is_ready for member in made.members):
        raise UserError(f"--rival {text}: it learns from calibration samples, which this study does not give it; name another.")
    return made
