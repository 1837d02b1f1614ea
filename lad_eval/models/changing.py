"""Asking a model under a change of its attention, and telling so in its fingerprint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lad_eval.attention.interventions import Intervention
from lad_eval.errors import UserError


class UnderIntervention(ABC):
    """The part of a VLM that implements `lad_eval.models.base.Changeable`; the model applies `_intervention` where it asks."""

    name: str
    model: Any
    _intervention: Intervention | None = None

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What determines the evidence, the intervention included."""
        return self._fingerprint_under(self._intervention)

    def _fingerprint_under(self, intervention: Intervention | None) -> Mapping[str, Any]:
        if intervention is None:
            return self._described
        return {**self._described, "intervention": {**intervention.facts, **_attending(self.model)}}

    @property
    @abstractmethod
    def _described(self) -> Mapping[str, Any]:
        """The fingerprint of the model as it is."""

    @contextmanager
    def under(self, intervention: Intervention | None) -> Iterator[None]:
        """Lets the model be asked under a change of its attention; None leaves it as it is.

        Raises:
            UserError: it is under one already.
        """
        if self._intervention is not None:
            raise UserError(f"{self.name} is under {self._intervention.label} already.")
        self._intervention = intervention
        try:
            yield
        finally:
            self._intervention = None


def _attending(model: Any) -> dict[str, list[int]]:
    """Of a hybrid the decoder layers that attend, since an intervention counts those; nothing where all layers attend."""
    from lad_eval.attention.tap import attention_layers, decoder_layers

    layers = sorted(attention_layers(model))
    return {} if len(layers) == len(decoder_layers(model)) else {"attending_layers": layers}
