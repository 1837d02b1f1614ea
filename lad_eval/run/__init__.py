"""The stages of a run: plan, collect, decide, write.

execute.py            a run from its settings to its figures
collect.py            runs a model on requests; evidence of a task, for the Python API
condition_runs.py     collects the requests that each condition needs
condition_results.py  the results of a condition, and the decisions from them
unrequested.py        stored conditions of the run that a command does not name
decide.py             from evidence to answers
results.py            `metrics.json` and `predictions.parquet`; a run decided again
preflight.py          checks that a model can take a task's prompts
progress.py           progress of a run
distributed.py        several processes, one run
folder/               a run's folder, its files, and finished runs read back
"""
