"""`lad-eval leaderboard`: every finished run in one table."""

from __future__ import annotations

import sys
from enum import Enum
from typing import Annotated

import typer

from lad_eval.cli.options import RESULTS, Out, Reported

Globs = list[str] | None


class Form(str, Enum):
    """Forms of the table."""

    rich = "rich"
    md = "md"
    latex = "latex"
    html = "html"
    csv = "csv"
    json = "json"


def leaderboard(
    out: Out = RESULTS,
    form: Annotated[Form, typer.Option("--format", "-f", help="How the table is written.")] = Form.rich,
    sort: Annotated[
        str,
        typer.Option(
            "--sort",
            help="accuracy, rstd, consistency (means over the tasks), passes, model, method; a task, or task:rstd. Best first.",
        ),
    ] = "accuracy",
    model: Annotated[Globs, typer.Option("--model", "-m", help="Only models like this, e.g. 'Qwen*'; may be repeated.")] = None,
    method: Annotated[Globs, typer.Option("--method", help="Only methods like this; may be repeated.")] = None,
    task: Annotated[Globs, typer.Option("--task", "-t", help="Only tasks like this; may be repeated.")] = None,
    allow_mixed: Annotated[
        bool, typer.Option("--allow-mixed", help="Show different dtypes, attention or task versions in one column, marked.")
    ] = False,
    reported: Reported = False,
) -> None:
    """Gather all runs: a row a model and method, a column a task."""
    from lad_eval.report.board_forms import render_board, rich_board
    from lad_eval.run.board import Filters, gather_board
    from lad_eval.terminal import write, write_json

    filters = Filters(tuple(model or ()), tuple(method or ()), tuple(task or ()))
    board = gather_board(out, filters, sort=sort, allow_mixed=allow_mixed, reported=reported)
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
