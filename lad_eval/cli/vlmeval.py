"""`lad-eval vlmeval`: VLMEvalKit's own command, with our tasks and models in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.options import IncludePath, listed
from lad_eval.terminal import write

TAKES_ANY_FLAG = {"allow_extra_args": True, "ignore_unknown_options": True}


def vlmeval(
    context: typer.Context,
    kit: Annotated[
        Path | None, typer.Option("--kit", help="A source checkout of VLMEvalKit to run; default: the installed one.")
    ] = None,
    include_path: IncludePath = None,
) -> None:
    """Run VLMEvalKit with our tasks, and with every model behind a method; all its own flags are passed on.

    --data takes VLMEvalKit's data sets, our tasks as such (ScenesRetrieval_Random_N4, COCORetrieval_Random_N4, ...) or by
    their own names, those in the folders of --include-path too, and YAML files. --model takes VLMEvalKit's models,
    <its model>+LAD, +PriDe or another method of `lad-eval ls methods`, lad-tiny, and HF:<hub id or folder>, the last two with
    or without a method.

    Its most used flags: --work-dir, --mode all|infer|eval, --limit, --reuse, --verbose; `python -m vlmeval --help` has all.
    """
    from lad_eval.cli.console import quiet_libraries
    from lad_eval.plugins.vlmevalkit.launch import run

    quiet_libraries(quiet=False)
    run(context.args, kit)


app = typer.Typer(name="lmms-eval", help="Run tasks and methods inside lmms-eval.", no_args_is_help=True)


@app.command("tasks")
def tasks(
    out: Annotated[Path, typer.Option("--out", help="The folder to write, for lmms-eval's --include_path.", file_okay=False)],
    names: Annotated[
        str | None,
        typer.Option("--tasks", "-t", help="Tasks, groups or YAML files, separated by commas; default: every bundled task."),
    ] = None,
    include_path: IncludePath = None,
) -> None:
    """Write tasks as a folder for lmms-eval's --include_path."""
    from lad_eval.plugins.lmms_eval.launch import write_tasks

    written = write_tasks(out, listed(names, "tasks") if names is not None else [])
    write(f"{len(written)} task{'' if len(written) == 1 else 's'} in {out}; python -m lmms_eval --include_path {out} ...\n")


@app.command("run", context_settings={**TAKES_ANY_FLAG, "token_normalize_func": str})
def run(context: typer.Context, include_path: IncludePath = None) -> None:
    """Run lmms-eval with its own flags on our tasks, given by name or YAML file: no --include_path needed.

    --include-path, with a hyphen, names a folder of our definitions; --include_path is lmms-eval's and names one of its own.
    """
    from lad_eval.plugins.lmms_eval.launch import launch

    if code := launch(context.args):
        raise typer.Exit(code)
