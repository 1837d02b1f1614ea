"""How a fault of the user's ends lmms-eval, whose own command prints a traceback and returns 0 for every exception."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lad_eval.errors import UserError
from lad_eval.terminal import visible


@contextmanager
def one_line() -> Iterator[None]:
    """Below lmms-eval's command a user error is one line and the end of the process; in a script it stays an exception.

    SystemExit also passes through the retries that lmms-eval puts around the loading of data.
    """
    try:
        yield
    except UserError as error:
        if not _below_command():
            raise
        sys.stderr.write(f"error: {visible(' '.join(str(error).split()))}\n")
        raise SystemExit(error.exit_code) from None


def _below_command() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "cli_evaluate":
        frame = frame.f_back
    return frame is not None
