"""The questions: task definitions, samples, displayed orders, requests.

`registry` finds tasks, `spec` says what a definition holds (`TaskSpec`), `task` joins it with its data, `plan` lists the
requests, `validate` names every fault; `sources` turns data into samples.
"""

from lad_eval.tasks.plan import Plan
from lad_eval.tasks.prompts import PROMPTS, IdentifierStyle, question
from lad_eval.tasks.registry import groups, load_spec, load_task, resolve, task_names
from lad_eval.tasks.request import ImageSource, Permutation, Request, Sample, SampleSource, Split, draw_permutations
from lad_eval.tasks.search import task_search
from lad_eval.tasks.task import Task

__all__ = [
    "PROMPTS",
    "IdentifierStyle",
    "ImageSource",
    "Permutation",
    "Plan",
    "Request",
    "Sample",
    "SampleSource",
    "Split",
    "Task",
    "draw_permutations",
    "groups",
    "load_spec",
    "load_task",
    "question",
    "resolve",
    "task_names",
    "task_search",
]
