"""What an intervention learns where a data set of VLMEvalKit has no calibration samples: from drawn pictures."""

from __future__ import annotations

from pathlib import Path

from lad_eval.attention.interventions import Intervention
from lad_eval.attention.pruning.trend import ENOUGH_REQUESTS
from lad_eval.models.base import VLM
from lad_eval.plugins.calibrated import intervention_requests, learned_intervention
from lad_eval.tasks.request import Permutation, Request
from lad_eval.tasks.sources.scenes import ScenesSource
from lad_eval.tasks.task import Task

QUESTION = "Does the picture show {caption}? Please answer yes or no."


def drawn_requests() -> tuple[Request, ...]:
    """ENOUGH_REQUESTS questions on one drawn picture each, 336 x 336, of which about half are to be answered with yes.

    No data set of VLMEvalKit shows such a picture, so that nothing is learned from what is evaluated.
    """
    source = ScenesSource(setting="random", candidates=2, samples=1, calibration_samples=ENOUGH_REQUESTS)
    return tuple(
        Request(
            sample_id=sample.id,
            permutation=Permutation.identity(1),
            images=sample.images[:1],
            question=QUESTION.format(caption=sample.caption),
            identifiers=("yes",),  # a request has as many candidates as pictures; nothing is decided here
            gold_position=0,
            split="calibration",
            caption=sample.caption,
        )
        for sample in source.samples("calibration")
    )


def learned_for(
    model: VLM, intervention: Intervention | None, task: Task | None, folder: Path, label: str
) -> Intervention | None:
    """The intervention, ready to be applied: with what it learns, if it learns anything.

    Args:
        model: that will write under it.
        intervention: None changes nothing.
        task: of ours, whose calibration samples are learned from; None for a data set of VLMEvalKit's own.
        folder: keeps what was learned; what it holds is used again.
        label: of model and data set, for the log.

    Raises:
        UserError: see `learned_intervention`.
    """
    if intervention is None or intervention.is_ready:
        return intervention
    requests = drawn_requests() if task is None else intervention_requests(task, intervention)
    return learned_intervention(model, intervention, requests, folder, label)
