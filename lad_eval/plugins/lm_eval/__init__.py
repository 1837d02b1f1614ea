"""lm-eval with our tasks and methods: a document is a sample, run under all its displayed orders.

launch.py  our tasks as lm-eval's YAML files, and its own command with our model in its registry
task.py    the class of the tasks in these files
model.py   `--model lad_eval`

lm-eval 0.4.13 reads no entry points, so the model is known only under `lad-eval lm-eval run`, or once
`lad_eval.plugins.lm_eval.model` is imported.
"""
