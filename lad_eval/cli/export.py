"""`lad-eval export`: results and tasks in the formats of others."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.console import log_next_steps
from lad_eval.cli.options import RESULTS, IncludePath, Quiet, Runs, SomeMethods, SomeTasks, expanded, is_glob, listed
from lad_eval.cli.report import Folders, Model
from lad_eval.errors import UserError
from lad_eval.terminal import counted, visible, write


class Form(str, Enum):
    """What to write."""

    model_card = "model-card"
    eval_results = "eval-results"
    trials = "trials"
    benchmark = "benchmark"


_RESULTS = frozenset({Form.model_card, Form.eval_results, Form.trials})
_EVAL_RESULTS, _BENCHMARK = frozenset({Form.eval_results}), frozenset({Form.benchmark})


def export(
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            "-f",
            help="model-card: a README.md with model-index; eval-results: for .eval_results/; trials: for Facet-Probe; "
            "benchmark: tasks as a data set.",
        ),
    ],
    folders: Folders = None,
    runs: Runs = RESULTS,
    model: Model = None,
    tasks: SomeTasks = None,
    methods: SomeMethods = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="eval-results, benchmark: hub id of the data set that lists the tasks.")
    ] = None,
    dataset_revision: Annotated[
        str | None, typer.Option("--dataset-revision", help="eval-results: commit of that data set, 40 hex digits.")
    ] = None,
    evaluated_on: Annotated[
        str | None, typer.Option("--evaluated-on", help="eval-results: date of the evaluation, ISO 8601; default: the hub's.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", help="eval-results: URL where the results can be seen.")] = None,
    source_user: Annotated[str | None, typer.Option("--source-user", help="eval-results: the hub's user who has them.")] = None,
    source_org: Annotated[
        str | None, typer.Option("--source-org", help="eval-results: the hub's organisation that has them.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="benchmark: of your own picture files, as the hub names it: cc-by-4.0.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The file, default: stdout; benchmark: the folder.")] = None,
    quiet: Quiet = False,
    include_path: IncludePath = None,
) -> None:
    """Write results or tasks for the Hugging Face hub (nothing is uploaded), or results as one line per answer.

    --methods: of a model card and of trials by default all, of eval-results exactly one, by default lad. benchmark takes
    tasks, not runs.
    """
    options = {
        "RUN...": (folders, _RESULTS),
        "--model": (model, _RESULTS),
        "--methods": (methods, _RESULTS),
        "--dataset": (dataset, _EVAL_RESULTS | _BENCHMARK),
        "--dataset-revision": (dataset_revision, _EVAL_RESULTS),
        "--evaluated-on": (evaluated_on, _EVAL_RESULTS),
        "--source": (source, _EVAL_RESULTS),
        "--source-user": (source_user, _EVAL_RESULTS),
        "--source-org": (source_org, _EVAL_RESULTS),
        "--licence": (licence, _BENCHMARK),
    }
    if strange := [name for name, (value, forms) in options.items() if value and form not in forms]:
        raise typer.BadParameter(f"--format {form.value} does not take {', '.join(strange)}.")
    if form is Form.benchmark:
        _write_benchmark(tasks, dataset, licence, out, quiet=quiet)
        return
    from lad_eval.report.card import ResultsLink, eval_results, model_card
    from lad_eval.report.html.load import choose
    from lad_eval.report.trials import trial_lines
    from lad_eval.run.folder.files import read_spec
    from lad_eval.tasks.registry import resolve

    selected = choose(folders or [runs], model, None if tasks is None else [resolve(word) for word in listed(tasks, "tasks")])
    stored_names = list(dict.fromkeys(name for run in selected for name in run.methods))
    words = ["*"] if methods is None else listed(methods, "methods")
    chosen = None if methods is None else expanded(words, stored_names, "method")
    if form is Form.trials:
        runs_of = Counter((run.metrics["model"], run.metrics["task"]) for run in selected)
        if twice := [f"{name} with {model}" for (model, name), count in runs_of.items() if count > 1]:
            raise UserError(f"There are several runs on {', '.join(twice)}; name one run folder of each task.")
        text = "".join(f"{line}\n" for run in selected for line in trial_lines(run, _held(run.methods, words)))
        _write(text, out, "lad-eval trials {out}")
        return
    if form is Form.model_card:
        _write(model_card([(run.metrics, read_spec(run.path)) for run in selected], chosen), out)
        return
    if dataset is None or len(chosen or ["lad"]) > 1:
        raise typer.BadParameter("--format eval-results needs --dataset owner/name and at most one of --methods.")
    if source is None and (source_user or source_org):
        raise typer.BadParameter("--source-user and --source-org need --source URL: the hub links the results to them.")
    text = eval_results(
        [(run.metrics, read_spec(run.path)) for run in selected],
        (chosen or ["lad"])[0],
        dataset=dataset,
        revision=dataset_revision,
        date=evaluated_on,
        source=None if source is None else ResultsLink(source, source_user, source_org),
    )
    _write(text, out)


def _held(stored: Sequence[str], words: Sequence[str]) -> list[str]:
    """The methods of one run that the words name: every plain name, and what a glob matches, which may be none here."""
    matches = (fnmatch.filter(stored, word) if is_glob(word) else [word] for word in words)
    return list(dict.fromkeys(name for names in matches for name in names))


def _write(text: str, out: Path | None, step: str = "put it into the model's repository on the hub") -> None:
    from lad_eval.files.atomic import sweep, write_text
    from lad_eval.run.folder.files import ResultsError

    if out is None:
        write(text)
        return
    try:
        sweep(out.parent, out.name)
        write_text(out, text)
        log_next_steps(step.format(out=out), written=out)
    except OSError as error:
        raise ResultsError(f"Cannot write {out}: {error.strerror}. Choose another file with --out.") from error


def _write_benchmark(tasks: str | None, dataset: str | None, licence: str | None, out: Path | None, *, quiet: bool) -> None:
    import functools

    from lad_eval.report.benchmark import write_benchmark
    from lad_eval.run.progress import progress
    from lad_eval.tasks.registry import load_task, resolve

    if tasks is None or dataset is None or out is None:
        raise typer.BadParameter("--format benchmark needs --tasks, --dataset owner/name and --out FOLDER.")
    names = dict.fromkeys(name for word in listed(tasks, "tasks") for name in resolve(word))
    opened = [load_task(name) for name in names]
    written = write_benchmark(opened, out, functools.partial(progress, shown=not quiet), dataset=dataset, licence=licence)
    write(f"{visible(str(out))}: {counted(len(opened), 'task')}, {counted(written.samples, 'test sample')}\n")
    if written.without_images:
        write(f"without images, which stand under their sources' terms: {', '.join(written.without_images)}\n")
    if not quiet:
        log_next_steps(f"hf upload {dataset} {out} --repo-type dataset")
