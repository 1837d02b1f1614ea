"""The condition that a model is run under: prompt variants and an intervention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lad_eval.attention.interventions import Intervention, join_interventions
from lad_eval.tasks.probes import Probe


@dataclass(frozen=True)
class Condition:
    """Prompt variants of the question, a change of the model's attention, and a probe. Evidence of conditions is never mixed.

    Attributes:
        prompt_variants: names of `lad_eval.tasks.prompts.PROMPT_VARIANTS`.
        intervention: that the model is run under.
        probe: what is replaced in each request; None: nothing. No method has such a condition: `Method.probes` names them.
    """

    prompt_variants: tuple[str, ...] = ()
    intervention: Intervention | None = None
    probe: Probe | None = None

    @property
    def label(self) -> str:
        """As in names of methods, "instruction+sofa(sigma=0.3)"; empty for the unchanged question and model."""
        intervention = [] if self.intervention is None else [self.intervention.label]
        return "+".join([*self.prompt_variants, *intervention, *([] if self.probe is None else [self.probe.label])])

    @property
    def base(self) -> Condition:
        """The same without a probe."""
        return replace(self, probe=None)

    def shows_images_of(self, other: Condition) -> bool:
        """Whether it is a probe of another condition, without intervention or token map, that shows its requests' images."""
        if self.probe is None or self.probe.images != "own" or self.probe.token_map:
            return False
        return other == self.base and self.intervention is None

    @property
    def learns(self) -> bool:
        """Whether its intervention must be calibrated before the model is run under it."""
        return self.intervention is not None and not self.intervention.is_ready

    def joined(self, inner: Condition) -> Condition:
        """Both at once: the variants of both, each once, and this one's intervention before the inner one's."""
        interventions = [each for each in (self.intervention, inner.intervention) if each is not None]
        variants = tuple(dict.fromkeys((*self.prompt_variants, *inner.prompt_variants)))
        return Condition(variants, join_interventions(interventions))

    def intervention_samples(self, candidates: int) -> int:
        """Number of calibration samples, of `candidates` images each, for its intervention; 0 if it learns nothing."""
        return 0 if self.intervention is None else self.intervention.calibration_samples_wanted(candidates)

    def document(self) -> dict[str, Any]:
        """JSON-serialisable facts."""
        return {
            "wordings": list(self.prompt_variants),
            "intervention": None if self.intervention is None else self.intervention.facts,
            **({} if self.probe is None else {"probe": self.probe.facts}),
        }


PLAIN = Condition()
