"""Running a model under interventions on its attention, shared by the VLM classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lad_eval.attention.hooks import attention_layers, decoder_layers
from lad_eval.attention.interventions import Intervention, join_interventions


class InterventionMixin(ABC):
    """Implements `lad_eval.models.base.Changeable` for a VLM, which applies `_intervention` to its forward passes itself.

    Attributes:
        name: of the model.
        model: the transformers model inside.
    """

    name: str
    model: Any
    _intervention: Intervention | None = None

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """The facts that determine the evidence, including the intervention."""
        return self._fingerprint_under(self._intervention)

    def _fingerprint_under(self, intervention: Intervention | None) -> Mapping[str, Any]:
        if intervention is None:
            return self._described
        return {**self._described, "intervention": {**intervention.facts, **_attending(self.model)}}

    @property
    @abstractmethod
    def _described(self) -> Mapping[str, Any]:
        """The fingerprint of the unchanged model."""

    @contextmanager
    def under(self, intervention: Intervention | None) -> Iterator[None]:
        """Runs the model under an intervention in addition to those already open; None changes nothing."""
        outer = self._intervention
        self._intervention = join_interventions([part for part in (outer, intervention) if part is not None])
        try:
            yield
        finally:
            self._intervention = outer


def _attending(model: Any) -> dict[str, list[int]]:
    """The decoder layers of a hybrid model that attend, which are the ones an intervention counts; empty where all layers do."""
    layers = sorted(attention_layers(model))
    return {} if len(layers) == len(decoder_layers(model)) else {"attending_layers": layers}
