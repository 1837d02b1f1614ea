"""Calls of the command line inside this process, and what must never come of one."""

import contextlib
import io
import os
import signal
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

SECONDS, WALL_SECONDS = 60, 600
"""Of the processor, and on the clock: the first does not count what other processes take, the second finds what only waits."""


class HangError(BaseException):
    """A call that did not end; no `except Exception` may catch it."""


@dataclass(frozen=True)
class Outcome:
    """How a call ended: `fault` says what must not be, None if nothing is wrong."""

    code: int
    out: str
    err: str
    fault: str | None = None

    @property
    def reported(self):
        """Whether anything but progress was said on stderr."""
        return any(
            line.startswith(("error:", "warning:")) or "not finished and left out" in line for line in self.err.splitlines()
        )


def call(*words, seconds=SECONDS):
    """One command."""
    from lad_eval.cli.main import invoke

    out, err = io.StringIO(), io.StringIO()
    before = [signal.signal(number, _hang) for number in (signal.SIGALRM, signal.SIGPROF)]
    signal.alarm(WALL_SECONDS)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = invoke([str(word) for word in words])
    except HangError:
        return Outcome(-1, out.getvalue(), err.getvalue(), f"hangs for {seconds} s")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return Outcome(-1, out.getvalue(), err.getvalue(), f"uncaught {type(error).__name__}: {error}")
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for number, handler in zip((signal.SIGALRM, signal.SIGPROF), before, strict=True):
            signal.signal(number, handler)
    return Outcome(code, out.getvalue(), err.getvalue(), _fault(code, out.getvalue(), err.getvalue()))


def _fault(code, out, err):
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    if code == 70 or "Traceback (most recent call last)" in err:
        return "our fault: " + " ".join(err.split())[-300:]
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if code == 2 and not errors and not out.lstrip().startswith("Usage:"):
        return f"exit code 2 without a line: {err[-200:]!r}"
    if any(ord(sign) < 32 and sign not in "\n\r" for sign in err):  # the bars of other libraries go back to the line's start
        return "a control character on stderr"
    return None


def _hang(*_):
    raise HangError


@contextlib.contextmanager
def one_model():
    """Loads each model once, whatever the calls ask for."""
    from lad_eval.run import execute

    load = execute.load_model
    cached = lru_cache(maxsize=4)(load)
    execute.load_model = cached
    try:
        yield
    finally:
        execute.load_model = load


@contextlib.contextmanager
def inside(folder):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@dataclass
class Tally:
    """Figures of a campaign."""

    done: int = 0
    equal: int = 0
    reported: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)

    def __str__(self):
        return (
            f"{self.done} done: {self.equal} equal, {self.reported} reported, {self.refused} refused, {len(self.faults)} faults"
        )
