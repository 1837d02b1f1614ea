"""One folder per paper: its tables and figures, regenerated for any supported model.

A study is a function that takes the user's `Settings` and an output folder. All studies follow the same steps: state which runs
are required, collect them, make documents from the stored results, write the documents. `--stored` skips the second step.

What they share:

requirement.py  the task and the methods of a run that a study requires
runs.py         collecting the required runs, or finding them among the finished ones, and reading them
timing.py       the time and memory of several ways to run a model, measured in alternation
tables.py       columns that several tables have: accuracies with significance marks, paired differences
document.py     a finished table or figure with its notes, as Markdown and LaTeX
output.py       the study's folder: one HTML page, Markdown, tables as CSV and LaTeX, figures as SVG and PDF

To add a study, add a folder that has

- its requirements: a list of `Requirement` for `collect_runs`, which resumes a killed run, shares the work among processes and
  reads finished runs without a model (`stored_runs`);
- measurements beyond ordinary runs, if any: a function of the model that `collect_runs` calls in the main process, and that
  writes what it measures into the study's folder, so that `--stored` can read it;
- functions that make a `StudyDocument` from a `RunIndex`: one for each group of tables and figures;
- `run.py`: calls these in order and hands a `StudyReport` to `write_study`;

and a command in `lad_eval.cli.study`. `lad` and `pruning` are two examples.
"""
