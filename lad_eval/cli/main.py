"""The application, and how its faults end: one line and exit code 2 for what a user can mend."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import lad_eval
from lad_eval.cli import (
    check,
    compare,
    data,
    demo,
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

INTERRUPTED = 130

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
app.command("demo")(demo.demo)
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
        The exit code: 0, 1 where a check found faults, 2 for a fault of the user's, 130 when interrupted.
    """
    listen(quiet=False)
    plain_warnings()
    command = typer.main.get_command(app)
    try:
        code = command.main(None if arguments is None else list(arguments), prog_name="lad-eval", standalone_mode=False)
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
    if code == INTERRUPTED:
        complain("Interrupted.", INTERRUPTED)
    return code if isinstance(code, int) else 0


def complain(text: str, exit_code: int = UserError.exit_code) -> None:
    """One line on stderr; none for a process that leaves speaking to another."""
    if line := " ".join(text.split()):
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
        line = f"{prefix}{record.getMessage()}\n"
        if line != self._last:
            sys.stderr.write(line)
        self._last = line
