"""A run's folder: its name, its files, and finished runs read back.

spec.py       what determines a run; its digest names the folder
files.py      the files, each whole or absent
schema.py     what the files of metrics and predictions may hold
metadata.py   what a run records besides its metrics
task_data.py  which data a run was made with
replacing.py  a run that takes the place of the one before
stored.py     finished runs, read back
rows.py       rows of tables, from `metrics.json`
reuse.py      evidence that other runs hold
"""
