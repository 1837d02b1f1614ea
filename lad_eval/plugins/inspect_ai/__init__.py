"""inspect_ai with our tasks and methods: a sample is asked under all its displayed orders.

tasks.py    every bundled task by its name, and `lad_eval/task` for a YAML file; the solver, which asks
scoring.py  the scorer, and RStd as a metric
model.py    `--model lad_eval/<lad-tiny, hub id or folder>`

inspect_ai loads this module, an entry point, for models and tasks of others as well: it loads no model of ours.
"""

from lad_eval.plugins.inspect_ai import model, tasks

__all__ = ["model", "tasks"]
