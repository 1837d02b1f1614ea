"""`lad-eval leaderboard`: every finished run in one table."""

from __future__ import annotations

import sys
from enum import Enum
from typing import Annotated

import typer

from lad_eval.cli.options import RESULTS, Reported, Runs, SomeMethods, SomeTasks, Studies, listed


class Form(str, Enum):
    """Forms of the table."""

    rich = "rich"
    md = "md"
    latex = "latex"
    html = "html"
    csv = "csv"
    json = "json"


def leaderboard(
    runs: Runs = RESULTS,
    form: Annotated[Form, typer.Option("--format", "-f", help="How the table is written.")] = Form.rich,
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
) -> None:
    """Gather all runs: one row per model and method, one column per task."""
    from lad_eval.report.board_forms import render_board, rich_board
    from lad_eval.run.board import Filters, gather_board
    from lad_eval.tasks.registry import members_of
    from lad_eval.terminal import write, write_json

    filters = Filters(
        tuple(listed(model, "models")) if model else (),
        tuple(listed(methods, "methods")) if methods else (),
        tuple(member for name in listed(tasks, "tasks") for member in members_of(name)) if tasks else (),
    )
    board = gather_board(runs, filters, sort=sort, allow_mixed=allow_mixed, reported=reported, studies=studies)
    if form is Form.rich and sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        console.print(rich_board(board, console.width), soft_wrap=True)
        return
    text = render_board(board, form.value)
    if form is Form.json:
        write_json(text)
    else:
        write(text + "\n")
