"""Output on stderr: log lines, warnings and errors, one plain line each."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_eval.errors import UserError
from lad_eval.terminal import visible, write

if TYPE_CHECKING:
    from rich.text import Text

INTERRUPTED = 130
_LONGEST = 2000
"""The most characters of a line on stderr; longer lines, which come from long names, are cut in the middle."""
logger = logging.getLogger(__name__)


def quiet_libraries(*, quiet: bool) -> None:
    """Shows only errors of the libraries; call before torch is imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # For a process that does not join, torch prints its own stack many times; we report it in one line.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    if quiet or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for module in ("transformers", "torch", "torchvision", "accelerate", "huggingface_hub"):
        warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")


def plain_warnings() -> None:
    """Shows every warning as one line without its place in the code, and the same text only once.

    Pillow's are left out: problems of an image are reported with that image.
    """
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
    warnings.showwarning = _show_warning


@cache
def _warn_once(text: str) -> None:
    logger.warning("%s", text)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    _warn_once(" ".join(str(message).split()))


def log_next_steps(*commands: str, written: str | Path | None = None) -> None:
    """One line on stderr, unless quiet: where results are, and suggestions of what to run next."""
    where = [] if written is None else [f"Saved in {written}"]
    logger.info("%s", " · ".join([*where, f"next: {', or '.join(commands)}"]))


def terminal_width() -> int | None:
    """Columns of the terminal behind stdout; None for a file or a pipe."""
    if not sys.stdout.isatty():
        return None
    from rich.console import Console

    return Console().width


def print_table(table: Callable[[int], Text]) -> None:
    """Prints a table to stdout: as wide as the terminal with bold numbers, or in the form for files.

    Args:
        table: renders it for a number of columns.
    """
    from lad_eval.report.forms import WIDTH_OF_FILES

    width = terminal_width()
    if width is None:
        write(f"{table(WIDTH_OF_FILES).plain}\n")
        return
    from rich.console import Console

    Console().print(table(width), soft_wrap=True)


def print_error(text: str, exit_code: int = UserError.exit_code) -> None:
    """One line on stderr; nothing in a process that leaves messages to another."""
    line = visible(" ".join(text.split()))
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    if line:
        sys.stderr.write(f"{line}\n" if exit_code == INTERRUPTED else f"error: {line}\n")


def set_up_output(*, quiet: bool) -> None:
    """`log_to_stderr` and `quiet_libraries`; call before torch is imported."""
    log_to_stderr(quiet=quiet)
    quiet_libraries(quiet=quiet)


def log_to_stderr(*, quiet: bool) -> None:
    """Sends the package's log to stderr, one plain line per message; when quiet, only warnings and errors."""
    logger = logging.getLogger("lad_eval")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.handlers = [_Stderr()]
    logger.propagate = False


class _Stderr(logging.Handler):
    """Writes to whatever `sys.stderr` is at the time; a line that several tasks or conditions give appears once per command.

    A record with the attribute `once` (`extra={"once": ...}`) is the same line as another with an equal one, whatever its text.
    """

    def __init__(self) -> None:
        super().__init__()
        self._written: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        line = f"{prefix}{visible(' '.join(record.getMessage().split()))}\n"
        note = getattr(record, "once", line)
        if note not in self._written:
            self._written.add(note)
            sys.stderr.write(line)
