"""A run's folder: its name, its files, and finished runs read back.

spec.py       what determines a run; its digest names the folder
files.py      the files, each complete or absent
schema.py     schemas of metrics and predictions
metadata.py   what a run records besides its metrics
task_data.py  the data that a run was made with
replacing.py  a run that replaces an earlier one
stored.py     finished runs, read back
rows.py       rows of tables, from `metrics.json`
reuse.py      evidence of other runs
"""
