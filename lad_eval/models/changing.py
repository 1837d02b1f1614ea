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
    _intervention: Intervention | None = None

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What determines the evidence, the intervention included."""
        if self._intervention is None:
            return self._described
        return {**self._described, "intervention": self._intervention.facts}

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
