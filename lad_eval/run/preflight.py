"""Checks, before a run, that a model can take the prompts of a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lad_eval.errors import DataError, UserError
from lad_eval.methods import Method
from lad_eval.models.base import VLM, Limited, PromptReport, ReadsPrompts, refuse
from lad_eval.run.collect import calibrates
from lad_eval.tasks.plan import one_request_per_sample
from lad_eval.tasks.task import Task
from lad_eval.terminal import counted

_NAMED = {"log_probs": "log-probabilities", "attention": "attention", "token_map": "token maps", "replies": "replies"}


def check_methods(model: VLM, methods: Mapping[str, Method]) -> None:
    """Refuses methods that need more than a model gives.

    Raises:
        UserError: names the first of them, what is missing, and methods that the model can run.
    """
    if not isinstance(model, Limited):
        return
    for name, method in methods.items():
        missing = [_NAMED[requirement] for requirement in sorted(method.needs - model.gives)]
        if method.condition.intervention is not None:
            missing.append(f"a change of the model ({method.condition.intervention.label})")
        if missing:
            available = " and ".join(_NAMED[requirement] for requirement in sorted(model.gives))
            fitting = [other for other, each in methods.items() if each.needs <= model.gives and not each.condition.intervention]
            raise UserError(
                f"{name} needs {' and '.join(missing)}, and {model.name} gives {available} only; choose methods that read these: "
                f"{','.join(fitting or ['generate', 'vanilla', 'pride'])}."
            )


def check_prompts(model: VLM, task: Task, methods: Mapping[str, Method], limit: int | None) -> None:
    """Refuses a task with a sample that the model cannot take under the methods' prompts.

    Raises:
        DataError: a sample's text becomes a control token of the model, its prompt is longer than the model's context, or an
            image cannot be read.
    """
    if not isinstance(model, ReadsPrompts):
        return
    prompt_variants: dict[tuple[str, ...], list[Method]] = {}
    for method in methods.values():
        prompt_variants.setdefault(method.condition.prompt_variants, []).append(method)
    for names, members in prompt_variants.items():
        variant = task.with_prompt(*names) if names else task
        requests = one_request_per_sample(variant, limit=limit, calibration=calibrates(members))
        replies = [decoding.max_new_tokens for decoding in (method.decoding for method in members) if decoding is not None]
        refuse(model.check_prompts(requests, reply_tokens=max(replies, default=0)).faults)


@dataclass(frozen=True)
class Preflight:
    """The result of checking a task's samples with a model's processor.

    Attributes:
        task: its name.
        model: its name.
        samples: how many were checked.
        prompts: the report on the prompts.
    """

    task: str
    model: str
    samples: int
    prompts: PromptReport

    @property
    def faults(self) -> list[str]:
        """One line per fault."""
        return [f"{self.task}: {fault}" for fault in self.prompts.faults]

    @property
    def summary(self) -> str:
        """Counts, in one line."""
        wrong = len({fault.sample_id for fault in self.prompts.faults})
        text = f"{self.task}: {counted(self.samples, 'sample')} checked for {self.model}, {wrong} of them cannot be used"
        if self.prompts.longest:
            limit = "unknown" if self.prompts.context is None else f"{self.prompts.context} tokens"
            text += f"; longest prompt {self.prompts.longest} tokens, context {limit}"
        return f"{text}."


def preflight(model: ReadsPrompts, tasks: Iterable[Task]) -> list[Preflight]:
    """Checks every sample of the tasks, those of calibration too, with the question's own prompt.

    Raises:
        DataError: an image cannot be read.
    """
    reports = []
    for task in tasks:
        requests = one_request_per_sample(task, calibration=True)
        if not requests:
            raise DataError(f"{task.name} has no samples.")
        reports.append(Preflight(task.name, model.name, len(requests), model.check_prompts(requests, exact=None)))
    return reports
