"""The whole order: plan, collect, decide, write; and what is read back from finished runs.

execute.py            a run from its settings to its figures
collect.py            evidence of a task, for the Python API; methods by name
condition_runs.py     what each condition needs of the model, collected
condition_results.py  what was collected under a condition, and the decisions made of it
decide.py             from evidence to answers
results.py            `metrics.json` and `predictions.parquet`; a run decided again
rows.py               rows of tables, from `metrics.json`
spec.py               what determines a run
folder.py             the folder of a run and its files
schema.py             what the files of figures and predictions may hold
metadata.py           what a run notes besides its figures
preflight.py          whether a model can take a task's prompts
task_data.py          which data a run was made with
reuse.py              evidence that other runs hold
stored.py             finished runs, read back
progress.py           how far a run is
distributed.py        several processes, one run
"""
