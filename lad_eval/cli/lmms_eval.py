"""`lad-eval lmms-eval`: our tasks and methods inside lmms-eval."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.options import listed
from lad_eval.terminal import write

app = typer.Typer(name="lmms-eval", help="Run tasks and methods inside lmms-eval.", no_args_is_help=True)


@app.command("tasks")
def tasks(
    out: Annotated[Path, typer.Option("--out", help="The folder to write, for lmms-eval's --include_path.", file_okay=False)],
    names: Annotated[
        str | None,
        typer.Option("--tasks", "-t", help="Tasks, groups or YAML files, separated by commas; default: every bundled task."),
    ] = None,
) -> None:
    """Write tasks as a folder for lmms-eval's --include_path."""
    from lad_eval.plugins.lmms_eval.generate import write_tasks

    written = write_tasks(out, listed(names, "tasks") if names is not None else [])
    write(f"{len(written)} task{'' if len(written) == 1 else 's'} in {out}; python -m lmms_eval --include_path {out} ...\n")


@app.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(context: typer.Context) -> None:
    """Run lmms-eval with its own flags on our tasks, given by name or YAML file: no --include_path needed."""
    from lad_eval.plugins.lmms_eval.launch import launch

    if code := launch(context.args):
        raise typer.Exit(code)
