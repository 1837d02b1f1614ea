"""`lad-eval export`: finished runs in the conventions of the Hugging Face hub."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.options import RESULTS, Runs, SomeMethods, SomeTasks, expanded, listed
from lad_eval.cli.report import Folders, Model
from lad_eval.cli.show import say_next


class Form(str, Enum):
    """What is written."""

    model_card = "model-card"
    eval_results = "eval-results"


def export(
    form: Annotated[
        Form, typer.Option("--format", "-f", help="model-card: a README.md with model-index; eval-results: for .eval_results/.")
    ],
    folders: Folders = None,
    runs: Runs = RESULTS,
    model: Model = None,
    tasks: SomeTasks = None,
    methods: SomeMethods = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="eval-results: hub id of the benchmark that lists the tasks.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", help="eval-results: URL where the results can be seen.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file; default: stdout.", dir_okay=False)] = None,
) -> None:
    """Write the figures of one model for its repository on the Hugging Face hub; nothing is uploaded.

    --methods: of a model card by default all, of eval-results exactly one, by default lad.
    """
    from lad_eval.files.atomic import sweep
    from lad_eval.pages.choose import choose
    from lad_eval.report.card import eval_results, model_card
    from lad_eval.run.folder import ResultsError, read_spec, write_atomically
    from lad_eval.tasks.registry import resolve
    from lad_eval.terminal import write

    found = choose(folders or [runs], model, None if tasks is None else resolve(listed(tasks, "tasks")))
    stored_names = list(dict.fromkeys(name for run in found for name in run.methods))
    chosen = None if methods is None else expanded(listed(methods, "methods"), stored_names, "method")
    if form is Form.eval_results and (dataset is None or len(chosen or ["lad"]) > 1):
        raise typer.BadParameter("--format eval-results needs --dataset owner/name and at most one of --methods.")
    if form is Form.model_card and (dataset or source):
        raise typer.BadParameter("--dataset and --source belong to --format eval-results.")
    stored = [(run.metrics, read_spec(run.path)) for run in found]
    if form is Form.model_card:
        text = model_card(stored, chosen)
    else:
        text = eval_results(stored, (chosen or ["lad"])[0], dataset=dataset or "", source_url=source)
    if out is None:
        write(text)
        return
    try:
        sweep(out.parent, out.name)
        write_atomically(out, lambda beside: beside.write_text(text, encoding="utf-8"))
        say_next("put it into the model's repository on the hub", kept=out)
    except OSError as error:
        raise ResultsError(f"Cannot write {out}: {error.strerror}. Choose another file with --out.") from error
