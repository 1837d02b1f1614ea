"""Our tasks as lm-eval's YAML files, and lm-eval's own command with our model in its registry."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import yaml

from lad_eval.errors import UserError
from lad_eval.plugins.task_folder import MODEL, FolderHarness

if TYPE_CHECKING:
    from lad_eval.tasks.spec import TaskSpec

_TASK = """\
task: {name}
tag: {tag}
class: !function lad_eval.plugins.lm_eval.task.SampleTask
place: {place}
definition: {definition}
"""


def _files(place: str, spec: TaskSpec, name: str) -> dict[str, str]:
    quoted = yaml.safe_dump(place, default_style='"', width=10**6).strip()
    return {f"{name}.yaml": _TASK.format(name=name, tag=MODEL, place=quoted, definition=spec.digest)}


def _run(flags: Sequence[str]) -> int:
    import lm_eval.__main__ as harness
    from lm_eval.api.registry import model_registry

    if MODEL not in model_registry:
        model_registry.register(MODEL, target="lad_eval.plugins.lm_eval.model:LmEvalModel")
    before = sys.argv
    sys.argv = ["lm_eval", *flags]
    try:
        harness.cli_evaluate()
    except ValueError as error:  # how lm-eval refuses a task, a model or a value; with --debug its traceback
        raise UserError(f"lm-eval: {error}") from error
    finally:
        sys.argv = before
    return 0


LM_EVAL = FolderHarness("lm-eval", "lm_eval", _files, _run)
