"""Other harnesses' own commands, with our tasks and models in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_eval.cli.options import IncludePath, listed
from lad_eval.terminal import write

if TYPE_CHECKING:
    from lad_eval.plugins.task_folder import FolderHarness

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


lmms_eval = typer.Typer(name="lmms-eval", help="Run tasks and methods inside lmms-eval.", no_args_is_help=True)
lm_eval = typer.Typer(name="lm-eval", help="Run tasks and methods inside lm-eval.", no_args_is_help=True)

PASSED_ON = {**TAKES_ANY_FLAG, "token_normalize_func": str}
Out = Annotated[Path, typer.Option("--out", help="The folder to write, for the harness's --include_path.", file_okay=False)]
Names = Annotated[
    str | None,
    typer.Option("--tasks", "-t", help="Tasks, groups or YAML files, separated by commas; default: every bundled task."),
]


@lmms_eval.command("tasks")
def lmms_eval_tasks(out: Out, names: Names = None, include_path: IncludePath = None) -> None:
    """Write tasks as a folder for lmms-eval's --include_path."""
    from lad_eval.plugins.lmms_eval.launch import LMMS_EVAL

    _write_tasks(LMMS_EVAL, out, names)


@lmms_eval.command("run", context_settings=PASSED_ON)
def lmms_eval_run(context: typer.Context, include_path: IncludePath = None) -> None:
    """Run lmms-eval with its own flags on our tasks, given by name or YAML file: no --include_path needed.

    --include-path, with a hyphen, names a folder of our definitions; --include_path is lmms-eval's and names one of its own.
    """
    from lad_eval.plugins.lmms_eval.launch import LMMS_EVAL

    _launch(LMMS_EVAL, context.args)


@lm_eval.command("tasks")
def lm_eval_tasks(out: Out, names: Names = None, include_path: IncludePath = None) -> None:
    """Write tasks as a folder for lm-eval's --include_path; its own models run them, hf-multimodal for one."""
    from lad_eval.plugins.lm_eval.launch import LM_EVAL

    _write_tasks(LM_EVAL, out, names)


@lm_eval.command("run", context_settings=PASSED_ON)
def lm_eval_run(context: typer.Context, include_path: IncludePath = None) -> None:
    """Run `lm-eval run` with its own flags on our tasks, given by name or YAML file: no --include_path needed.

    --model lad_eval --model_args pretrained=<model>,method=<method> answers with a method of ours.
    --include-path, with a hyphen, names a folder of our definitions; --include_path is lm-eval's and names one of its own.
    """
    from lad_eval.plugins.lm_eval.launch import LM_EVAL

    _launch(LM_EVAL, ["run", *context.args])


def _write_tasks(harness: FolderHarness, out: Path, names: str | None) -> None:
    from lad_eval.plugins.task_folder import write_tasks

    written = write_tasks(harness, out, listed(names, "tasks") if names is not None else [])
    write(f"{len(written)} task{'' if len(written) == 1 else 's'} in {out}; use it as {harness.name}'s --include_path {out}\n")


def _launch(harness: FolderHarness, flags: list[str]) -> None:
    from lad_eval.plugins.task_folder import launch

    if code := launch(harness, flags):
        raise typer.Exit(code)
