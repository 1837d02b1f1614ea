"""`lad-eval report`: finished runs as one HTML page."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.console import log_next_steps, print_table
from lad_eval.cli.options import (
    RESULTS,
    IncludePath,
    Quiet,
    Reported,
    Run,
    Runs,
    SomeMethods,
    SomeTasks,
    Studies,
    expanded,
    listed,
)
from lad_eval.terminal import counted, write

Folders = Annotated[
    list[Path] | None, typer.Argument(help="Run folders, or folders above them. Default: all of --runs.", show_default=False)
]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Only the runs of this model.")]


def report(
    folders: Folders = None,
    runs: Runs = RESULTS,
    model: Model = None,
    tasks: SomeTasks = None,
    studies: Studies = False,
    out: Annotated[Path, typer.Option("--out", help="The HTML file.", dir_okay=False)] = Path("report.html"),
    pictures: Annotated[
        int, typer.Option("--pictures", help="Samples of each run that are shown with their images.", min=0)
    ] = 24,
    quiet: Quiet = False,
    include_path: IncludePath = None,
) -> None:
    """Write finished runs as one self-contained HTML page: the finding first, then figures, attention, calibration, every sample.

    Captions and images of your own tasks are read from where the run found them; if they have moved, name the task's file with
    --tasks.
    """
    from lad_eval.report.html import write_report
    from lad_eval.report.html.load import choose, definitions_of
    from lad_eval.run.progress import progress
    from lad_eval.tasks.registry import resolve

    wanted = None if tasks is None else [resolve(word) for word in listed(tasks, "tasks")]
    selected = choose(folders or [runs], model, wanted, studies=studies)
    names = [name for members in wanted or () for name in members]
    with progress("report", len(selected), shown=not quiet, unit="runs") as advance:
        written = write_report(selected, out, definitions=definitions_of(names), pictured=pictures, advance=advance)
    write(
        f"{written.path}: {counted(written.runs, 'run')}, {counted(written.samples, 'sample')}, "
        f"{written.pictured} of them with images, {written.size / 1e6:.1f} MB\n"
    )
    if not quiet:
        log_next_steps(f"open {written.path} in a browser")


def figure(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="Image file: .svg, .png or .pdf.", dir_okay=False)] = Path("positions.svg"),
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods", help="Methods to plot; default: vanilla, and LAD or a method that helps more.", show_default=False
        ),
    ] = None,
    include_path: IncludePath = None,
) -> None:
    """Plot recall by the position of the right image, with 95 % intervals; flat bars mean a fair model."""
    from lad_eval.report.html.opening import position_picture
    from lad_eval.run.folder.stored import load_run
    from lad_eval.terminal import visible, write

    chosen = None if methods is None else expanded(listed(methods, "methods"), load_run(run).methods, "method")
    position_picture(run, out, chosen)
    write(f"{visible(str(out))}\n")
    log_next_steps("lad-eval report")


def trials(
    files: Annotated[list[Path], typer.Argument(help="Files of JSON lines, as `lad-eval export --format trials` writes them.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as a JSON list.")] = False,
) -> None:
    """Compute flip rates and OSI from files of trials, ours or Facet-Probe's."""
    from dataclasses import asdict

    from lad_eval.report.forms import terminal
    from lad_eval.report.trials import read_trials, trial_figures, trials_table

    figures = trial_figures(trial for file in files for trial in read_trials(file))
    if as_json:
        import json

        from lad_eval.terminal import write_json

        write_json(json.dumps([asdict(one) for one in figures], indent=2))
        return
    print_table(lambda width: terminal(trials_table(figures), width))


class FormForm(str, Enum):
    """Formats of the table."""

    rich = "rich"
    md = "md"
    latex = "latex"
    html = "html"
    csv = "csv"
    json = "json"


def leaderboard(
    runs: Runs = RESULTS,
    form: Annotated[FormForm, typer.Option("--format", "-f", help="Format of the table.")] = FormForm.rich,
    sort: Annotated[
        str,
        typer.Option(
            "--sort",
            help="accuracy, rstd, consistency (means over the tasks), passes, model, method; a task, or task:rstd. Best first.",
        ),
    ] = "accuracy",
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Only these models or globs, e.g. 'Qwen*', separated by commas.")
    ] = None,
    methods: SomeMethods = None,
    tasks: SomeTasks = None,
    studies: Studies = False,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Show different dtypes, attention or task versions in one column, marked.")
    ] = False,
    reported: Reported = False,
    include_path: IncludePath = None,
) -> None:
    """Show all runs: one row per model and method, one column per task."""
    from lad_eval.report.leaderboard import Filters, gather_board
    from lad_eval.report.leaderboard_forms import render_board, table_of
    from lad_eval.tasks.registry import members_of
    from lad_eval.terminal import write_json

    filters = Filters(
        tuple(listed(model, "models")) if model else (),
        tuple(listed(methods, "methods")) if methods else (),
        tuple(member for name in listed(tasks, "tasks") for member in members_of(name)) if tasks else (),
    )
    board = gather_board(runs, filters, sort=sort, allow_mixed=allow_mixed, reported=reported, studies=studies)
    if form is FormForm.rich:
        from lad_eval.report.forms import terminal

        print_table(lambda width: terminal(table_of(board), width))
        return
    text = render_board(board, form.value)
    if form is FormForm.json:
        write_json(text)
    else:
        write(text + "\n")
