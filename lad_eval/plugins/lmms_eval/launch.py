"""Runs lmms-eval's own command on our tasks, with an exit code that says how it went."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lad_eval.errors import UnknownNameError, UserError
from lad_eval.files.atomic import Scratch
from lad_eval.plugins.lmms_eval.generate import names_in_lmms_eval, write_tasks
from lad_eval.tasks.registry import groups, resolve, task_names

NEAR = 0.8
"""Likeness from which an unknown task is taken for one of ours, misspelt."""

MODEL = "lad_eval"
"""Our model's name in lmms-eval."""

MISSING = "lmms-eval is not installed here: pip install 'lad-eval[lmms-eval]', in an environment of its own."


def launch(arguments: Sequence[str]) -> int:
    """lmms-eval with its own flags; those of our tasks that `--tasks` names are written to a temporary folder.

    Returns:
        0; or 1 where lmms-eval failed, which returns 0 then and has said why.

    Raises:
        UserError: lmms-eval is not installed, or a task of ours cannot be used.
    """
    try:
        version("lmms-eval")
    except PackageNotFoundError:
        raise UserError(MISSING) from None
    ours = _our_tasks(arguments)
    strangers = [word for word in _others(arguments) if not word.startswith("list")]  # `--tasks list` lists lmms-eval's
    if strangers and _value(arguments, "--model") == MODEL and _value(arguments, "--include_path") is None:
        raise UserError(f"{strangers[0]} is no task of lad_eval, which `--model {MODEL}` needs; `lad-eval ls tasks` lists them.")
    with Scratch("lmms") as folder:
        flags = list(arguments)
        if ours:
            if _value(arguments, "--include_path") is not None:
                raise UserError(
                    "lmms-eval takes one --include_path: write our tasks into that folder with "
                    "`lad-eval lmms-eval tasks --out <folder>`, and run `python -m lmms_eval`."
                )
            names = write_tasks(Path(folder), ours)
            flags = _replaced(flags, "--tasks", ",".join([*names, *_others(arguments)]))
            flags += ["--include_path", folder]
        return _command(flags)


def _command(flags: Sequence[str]) -> int:
    import lmms_eval.__main__ as harness

    failed = False
    evaluate: Any = harness.cli_evaluate_single

    def watched(*given: Any) -> Any:
        nonlocal failed
        try:
            return evaluate(*given)
        except Exception:
            failed = True
            raise

    before = sys.argv
    sys.argv = ["lmms_eval", *flags]
    harness.cli_evaluate_single = watched
    try:
        harness.cli_evaluate()
    finally:
        sys.argv = before
        harness.cli_evaluate_single = evaluate
    return int(failed)


def _named(arguments: Sequence[str]) -> list[str]:
    return [word.strip() for word in (_value(arguments, "--tasks") or "").split(",") if word.strip()]


def _our_tasks(arguments: Sequence[str]) -> list[str]:
    """Words of `--tasks` that we know; a group of ours stands for its tasks.

    Raises:
        UnknownNameError: a word is near a name of ours, and no name of lmms-eval's.
    """
    ours = [word for word in _named(arguments) if _is_ours(word)]
    known = [*task_names(), *groups()]
    for word in _others(arguments):
        if difflib.get_close_matches(word, known, n=1, cutoff=NEAR) and word not in names_in_lmms_eval():
            raise UnknownNameError("task", word, known)
    return ours


def _others(arguments: Sequence[str]) -> list[str]:
    return [word for word in _named(arguments) if not _is_ours(word)]


def _is_ours(word: str) -> bool:
    try:
        resolve(word)
    except UnknownNameError:
        return False
    except UserError:
        if Path(word).suffix in (".yaml", ".yml"):
            raise
        return False
    return True


def _value(arguments: Sequence[str], flag: str) -> str | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(flag, dest="value")
    value: str | None = parser.parse_known_args(list(arguments))[0].value
    return value


def _replaced(arguments: Sequence[str], flag: str, value: str) -> list[str]:
    """The arguments with another value for a flag that stands among them as `--flag value` or `--flag=value`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(flag)
    rest = parser.parse_known_args(list(arguments))[1]
    return [*rest, flag, value]
