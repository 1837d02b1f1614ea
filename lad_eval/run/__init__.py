"""The stages of a run: plan, collect, decide, write.

execute.py            a run from its settings to its figures
collect.py            requests put to a model; evidence of a task, for the Python API
condition_runs.py     what each condition needs of the model, collected
condition_results.py  what was collected under a condition, and the decisions made of it
unrequested.py        conditions of the run that a command does not ask for, as they are stored
decide.py             from evidence to answers
results.py            `metrics.json` and `predictions.parquet`; a run decided again
preflight.py          whether a model can take a task's prompts
progress.py           how far a run is
distributed.py        several processes, one run
folder/               what a run's folder is named by and holds, and finished runs read back
"""
