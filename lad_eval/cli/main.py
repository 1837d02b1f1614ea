"""The application and its error handling: one line per error, with exit code 2 for user errors and 70 for internal ones."""

from __future__ import annotations

import atexit
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperGroup

from lad_eval.cli import capl, data, demo, export, harnesses, inspect, report, run, study
from lad_eval.cli.console import INTERRUPTED, log_to_stderr, plain_warnings, print_error
from lad_eval.errors import UserError
from lad_eval.tasks.search import task_search
from lad_eval.terminal import degrade_output
from lad_eval.version import __version__

OUR_FAULT = 70
"""Unexpected errors; EX_SOFTWARE of sysexits.h."""
DEBUG = "--debug"
_DEBUG_VARIABLE = "LAD_EVAL_DEBUG"
_OTHERS_FLAGS = ("vlmeval", "lmms-eval", "lmms_eval", "lm-eval", "lm_eval")
"""Commands that pass their flags on: there --debug goes before the command."""
_ENVIRONMENT = {
    code: getattr(errno, code)
    for code in (
        *("EACCES", "EPERM", "ENOSPC", "EDQUOT", "EROFS", "EIO", "EBUSY", "ESTALE", "EMFILE", "ENFILE"),
        *("ENAMETOOLONG", "ELOOP", "EISDIR", "ENOTDIR"),
    )
    if hasattr(errno, code)
}
"""Errors of disks, permissions and paths, which the user has to fix wherever they occur."""

MEASURE, RESULTS, PREPARE, HARNESSES = "Measure", "Look at results", "Prepare and inspect", "Inside other harnesses"


class Command(NamedTuple):
    """A command of the application.

    Attributes:
        panel: of `lad-eval --help`.
        examples: lines that a reader can type, shown below the command's options.
    """

    name: str
    function: Callable[..., object]
    panel: str
    examples: tuple[str, ...]
    context: dict[str, Any] | None = None


COMMANDS = (
    Command(
        "demo",
        demo.demo,
        MEASURE,
        ("lad-eval demo", 'lad-eval demo --images a.jpg b.jpg c.jpg --caption "a dog on a beach" --model <folder or hub id>'),
    ),
    Command(
        "run",
        run.run,
        MEASURE,
        (
            "lad-eval run --model lad-tiny --tasks scenes_main --limit 100",
            "lad-eval run --model Qwen/Qwen2.5-VL-3B-Instruct --tasks 'coco_*_n4' --methods vanilla,lad,sofa+lad --reported",
            "lad-eval run --config run.yaml --limit 0.1",
            "torchrun --nproc-per-node 8 -m lad_eval run --model <folder or hub id> --tasks scenes_main",
        ),
    ),
    Command(
        "paper",
        study.lad,
        MEASURE,
        ("lad-eval study lad --model lad-tiny", "lad-eval study lad --model lad-tiny --only table4,figure6"),
    ),
    Command(
        "check",
        run.check,
        MEASURE,
        ("lad-eval check results/baselines/lad-tiny.json", "lad-eval check my.json --model checkpoints/13000 --device cuda"),
    ),
    Command(
        "report",
        report.report,
        RESULTS,
        ("lad-eval report", "lad-eval report --model lad-tiny --tasks 'scenes_*_n4' --out lad-tiny.html"),
    ),
    Command(
        "leaderboard",
        report.leaderboard,
        RESULTS,
        ("lad-eval leaderboard", "lad-eval leaderboard --model 'Qwen*' --tasks 'coco_*' --methods vanilla,lad --format md"),
    ),
    Command(
        "compare",
        run.compare,
        RESULTS,
        (
            "lad-eval compare results/runs/lad-tiny/scenes_random_n4 --against vanilla",
            "lad-eval compare results/runs/model-a/coco_random_n4 results/runs/model-b/coco_random_n4 --methods lad",
        ),
    ),
    Command(
        "score",
        run.score,
        RESULTS,
        ("lad-eval score results/runs/lad-tiny/scenes_random_n4 --set 'lad(top_k=1)'",),
    ),
    Command(
        "figure",
        report.figure,
        RESULTS,
        ("lad-eval figure results/runs/lad-tiny/scenes_random_n4 --methods vanilla,lad --out positions.svg",),
    ),
    Command(
        "export",
        export.export,
        RESULTS,
        (
            "lad-eval export --format model-card --model lad-tiny --methods vanilla,lad --out README.md",
            "lad-eval export --format benchmark --tasks 'scenes_*_n4' --dataset owner/name --out benchmark",
        ),
    ),
    Command("trials", report.trials, RESULTS, ("lad-eval trials trials.jsonl",)),
    Command("ls", inspect.ls, PREPARE, ("lad-eval ls tasks", "lad-eval ls methods", "lad-eval ls models --harness vlmeval")),
    Command("validate", inspect.validate, PREPARE, ("lad-eval validate my_pictures.yaml",)),
    Command("doctor", inspect.doctor, PREPARE, ("lad-eval doctor",)),
    Command(
        "vlmeval",
        harnesses.vlmeval,
        HARNESSES,
        (
            "lad-eval vlmeval --data COCORetrieval_Random_N4 --model Qwen2.5-VL-3B-Instruct Qwen2.5-VL-3B-Instruct+LAD",
            "lad-eval vlmeval --data ScenesRetrieval_Random_N4 --model lad-tiny+LAD --work-dir outputs",
        ),
        harnesses.TAKES_ANY_FLAG,
    ),
)
# What users of other harnesses type.
SYNONYMS = {"eval": "run", "evaluate": "run", "list": "ls", "tasks": "ls", "html": "report", "diff": "compare"}


class Commands(TyperGroup):
    """The group of all commands; knows their names in other harnesses."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and (meant := SYNONYMS.get(args[0])):
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{meant}'?")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="lad-eval",
    cls=Commands,
    help="Measure and repair position bias in multi-image evaluation of vision-language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": lambda token: token.replace("_", "-")},
)
for command in COMMANDS:
    app.command(
        command.name,
        rich_help_panel=command.panel,
        epilog="\n\n".join(["[bold]Examples[/bold]", *(f"  {line}".replace("[", "\\[") for line in command.examples)]),
        context_settings=command.context,
    )(command.function)
app.add_typer(study.app, rich_help_panel=MEASURE)
app.add_typer(capl.app, rich_help_panel=MEASURE)
app.add_typer(data.app, rich_help_panel=PREPARE)
app.add_typer(harnesses.lm_eval, rich_help_panel=HARNESSES)
app.add_typer(harnesses.lmms_eval, rich_help_panel=HARNESSES)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help=f"Show the traceback of an error; so does {_DEBUG_VARIABLE}=1.")] = False,
) -> None:
    """Options without a command."""


# typer >= 0.26 vendors click, so the base class of both usage errors is looked up rather than imported.
_UsageError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `lad-eval`; ends the process."""
    code = invoke(arguments)
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):  # the reader of our output may be gone
        sys.stdout.flush()
        sys.stderr.flush()
    # Not sys.exit: the interpreter would collect garbage in torch and transformers for at least a second.
    os._exit(code)


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0, 1 if a check found faults, 2 for a user error, 70 for an internal one, 130 when interrupted.
    """
    degrade_output()
    log_to_stderr(quiet=False)
    plain_warnings()
    words, debug = _without_debug(sys.argv[1:] if arguments is None else list(arguments))
    command = typer.main.get_command(app)
    try:
        with task_search():
            code = command.main(words, prog_name="lad-eval", standalone_mode=False)
    except UserError as error:
        print_error(str(error) + _elsewhere(str(error), words, command), error.exit_code)
        return error.exit_code
    except _UsageError as error:
        print_error(error.format_message().replace("Value error, ", ""))
        return UserError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:  # unexpected errors: one line and exit code 70, or 2 for disks and memory
        if debug:
            traceback.print_exc()
        return _last_resort(error)
    if code == INTERRUPTED:
        print_error("Interrupted.", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _elsewhere(text: str, words: Sequence[str], root: Any) -> str:
    """What to add to an error that names, outside backticks, options of `run` which the command that was given lacks."""
    name, command = "lad-eval", root
    for word in words:
        if word not in getattr(command, "commands", {}):
            break
        name, command = f"{name} {word}", command.commands[word]
    if command.ignore_unknown_options:  # another harness's options are passed on
        return ""
    here, of_run = ({flag for option in each.params for flag in option.opts} for each in (command, root.commands["run"]))
    named = dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub("`[^`]*`", "", text)))
    lacking = [flag for flag in named if flag in of_run - here]
    if not lacking:
        return ""
    which = "that is an option" if len(lacking) == 1 else "those are options"
    return f" (`{name}` has no {' or '.join(lacking)}; {which} of `lad-eval run`.)"


def _without_debug(words: list[str]) -> tuple[list[str], bool]:
    """The arguments without --debug, wherever it is among our own, and whether a traceback is wanted."""
    passed_on = next((place for place, word in enumerate(words) if word in _OTHERS_FLAGS), len(words))
    ours = [word for word in words[:passed_on] if word != DEBUG]
    wants_traceback = len(ours) < passed_on or os.environ.get(_DEBUG_VARIABLE, "0").lower() not in ("", "0", "false", "no", "off")
    return [*ours, *words[passed_on:]], wants_traceback


def _last_resort(error: Exception) -> int:
    """One line for an unexpected error, and its exit code."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT.values():
        where = error.filename2 if error.filename2 is not None else error.filename
        print_error(f"Cannot use {where}: {error.strerror}." if where is not None else f"{error.strerror}.")
        return UserError.exit_code
    if isinstance(error, MemoryError):
        print_error("Out of memory; use a smaller --batch-size or --limit, or a machine with more memory.")
        return UserError.exit_code
    named = type(error).__name__ + (f": {text}" if text else "")
    print_error(f"This is a bug in lad_eval: {named.rstrip('.')}. Run it again with {DEBUG} for the traceback, and report it.")
    return OUR_FAULT
