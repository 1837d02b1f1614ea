"""The application, and how its faults end: one line each, with exit code 2 for the user's and 70 for our own."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import lad_eval
from lad_eval.cli import (
    check,
    compare,
    data,
    doctor,
    export,
    figure,
    leaderboard,
    lmms_eval,
    ls,
    paper,
    report,
    run,
    score,
    validate,
    vlmeval,
)
from lad_eval.errors import UserError
from lad_eval.run.silence import plain_warnings
from lad_eval.terminal import degrade_output, visible

INTERRUPTED = 130
_LONGEST = 2000
"""Characters of a line on stderr; what names and texts of others add beyond that is left out in the middle."""
OUR_FAULT = 70
"""What nobody foresaw; EX_SOFTWARE of sysexits.h."""
DEBUG = "--debug"
_DEBUG_VARIABLE = "LAD_EVAL_DEBUG"
_OTHERS_FLAGS = ("vlmeval", "lmms-eval")
"""Commands that hand their flags on: there --debug stands before the command."""
_ENVIRONMENT = {
    code: getattr(errno, code)
    for code in (
        *("EACCES", "EPERM", "ENOSPC", "EDQUOT", "EROFS", "EIO", "EBUSY", "ESTALE", "EMFILE", "ENFILE"),
        *("ENAMETOOLONG", "ELOOP", "EISDIR", "ENOTDIR"),
    )
    if hasattr(errno, code)
}
"""Faults of disks, permissions and paths, which are the user's to mend wherever they come up."""

app = typer.Typer(
    name="lad-eval",
    help="Measure and repair position bias in multi-image evaluation of vision-language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("ls")(ls.ls)
app.command("score")(score.score)
app.command("compare")(compare.compare)
app.command("paper")(paper.paper)
app.command("check")(check.check)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("figure")(figure.figure)
app.command("report")(report.report)
app.command("export")(export.export)
app.add_typer(data.app)
app.command("validate")(validate.validate)
app.command("doctor")(doctor.doctor)
app.command("vlmeval", context_settings=vlmeval.TAKES_ANY_FLAG)(vlmeval.vlmeval)
app.add_typer(lmms_eval.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(lad_eval.__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)] = False,
    debug: Annotated[bool, typer.Option(DEBUG, help=f"Show the traceback of a fault; so does {_DEBUG_VARIABLE}=1.")] = False,
) -> None:
    """Options of no command."""


# typer >= 0.26 carries its own copy of click: the one class that is the base of both usage errors is found, not imported.
_UsageError: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `lad-eval`; ends the process."""
    sys.exit(invoke(arguments))


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0, 1 where a check found faults, 2 for a fault of the user's, 70 for one of ours, 130 when interrupted.
    """
    degrade_output()
    listen(quiet=False)
    plain_warnings()
    words, debug = _without_debug(sys.argv[1:] if arguments is None else list(arguments))
    command = typer.main.get_command(app)
    try:
        code = command.main(words, prog_name="lad-eval", standalone_mode=False)
    except UserError as error:
        complain(str(error), error.exit_code)
        return error.exit_code
    except _UsageError as error:
        complain(error.format_message().replace("Value error, ", ""))
        return UserError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _last_resort(error)
    if code == INTERRUPTED:
        complain("Interrupted.", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _without_debug(words: list[str]) -> tuple[list[str], bool]:
    """The arguments without --debug, wherever it stands among our own, and whether a traceback is wanted."""
    passed_on = next((place for place, word in enumerate(words) if word in _OTHERS_FLAGS), len(words))
    ours = [word for word in words[:passed_on] if word != DEBUG]
    asked = len(ours) < passed_on or os.environ.get(_DEBUG_VARIABLE, "0").lower() not in ("", "0", "false", "no", "off")
    return [*ours, *words[passed_on:]], asked


def _last_resort(error: Exception) -> int:
    """One line for what no code foresaw, and its exit code."""
    told = " ".join(str(error).split())[:500]
    if isinstance(error, OSError) and error.errno in _ENVIRONMENT.values():
        where = error.filename2 if error.filename2 is not None else error.filename
        complain(f"Cannot use {where}: {error.strerror}." if where is not None else f"{error.strerror}.")
        return UserError.exit_code
    if isinstance(error, MemoryError):
        complain("The memory does not suffice; use a smaller --batch-size or --limit, or a machine with more.")
        return UserError.exit_code
    named = type(error).__name__ + (f": {told}" if told else "")
    complain(f"This is a fault of lad_eval: {named.rstrip('.')}. Run it again with {DEBUG} for the traceback, and report it.")
    return OUR_FAULT


def complain(text: str, exit_code: int = UserError.exit_code) -> None:
    """One line on stderr; none for a process that leaves speaking to another."""
    line = visible(" ".join(text.split()))
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    if line:
        sys.stderr.write(f"{line}\n" if exit_code == INTERRUPTED else f"error: {line}\n")


def listen(*, quiet: bool) -> None:
    """Sends what the package reports to stderr, a plain line each; when quiet, only warnings and worse."""
    logger = logging.getLogger("lad_eval")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.handlers = [_Stderr()]
    logger.propagate = False


class _Stderr(logging.Handler):
    """Writes to whatever `sys.stderr` is at the time; the same line in a row, as of several tasks on one data set, once."""

    def __init__(self) -> None:
        super().__init__()
        self._last = ""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        line = f"{prefix}{visible(' '.join(record.getMessage().split()))}\n"
        if line != self._last:
            sys.stderr.write(line)
        self._last = line
