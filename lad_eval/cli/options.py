"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lad_eval.errors import UnknownNameError

RESULTS = Path("results/runs")
_NOT_IN_BRACKETS = re.compile(r",(?![^()]*\))")


class ImagePreparation(str, Enum):
    """How images reach the model."""

    protocol = "protocol"
    native = "native"


Model = Annotated[
    str, typer.Option("--model", "-m", help="`lad-tiny`, a local folder, a hub id, or `random:<family>`; `lad-eval ls models`.")
]
Tasks = Annotated[str, typer.Option("--tasks", "-t", help="Tasks, groups, globs or YAML files, separated by commas.")]
Methods = Annotated[
    str, typer.Option("--methods", help="Methods or globs, separated by commas; `lad-eval ls methods` lists them.")
]
SomeTasks = Annotated[str | None, typer.Option("--tasks", "-t", help="Only these tasks, groups or globs, separated by commas.")]
SomeMethods = Annotated[str | None, typer.Option("--methods", help="Only these methods or globs, separated by commas.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else to stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only warnings.")]
Reported = Annotated[bool, typer.Option("--reported", help="Show published figures of the same model below ours, marked.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the bootstrap and of `random:` models.", min=0)]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model.")]
Adapter = Annotated[str | None, typer.Option("--adapter", help="Folder or hub id of a PEFT adapter to merge into the model.")]
PreparedAs = Annotated[
    ImagePreparation, typer.Option("--image-preparation", help="protocol: 336 x 336, bicubic; native: as the model prefers.")
]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with a hub model.")]
Date = Annotated[str, typer.Option("--date", help="YYYY-MM-DD, what a chat template prints that asks for today's date.")]
Runs = Annotated[Path, typer.Option("--runs", "--output-path", help="The folder of all runs.", file_okay=False)]
Studies = Annotated[bool, typer.Option("--studies", help="Show runs that `lad-eval paper` made for its own tables too.")]
Run = Annotated[
    Path, typer.Argument(help="A run folder: results/runs/<model>/<task>/<hash>, or a folder above it that holds only one run.")
]


def listed(text: str, what: str) -> list[str]:
    """The names in `text`, once each, in its order.

    Raises:
        typer.BadParameter: there is none.
    """
    names = list(dict.fromkeys(name.strip() for name in _NOT_IN_BRACKETS.split(text) if name.strip()))
    if not names:
        raise typer.BadParameter(f"--{what} names none; `lad-eval ls {what}` lists them.")
    return names


def limit_of(text: str | None) -> int | float | None:
    """Of `--limit`: a number of samples, or a share of them below 1, as lm-eval takes it; None: all.

    Raises:
        typer.BadParameter: it is neither.
    """
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if 0 < number < 1:
        return number
    if number >= 1 and number.is_integer():
        return int(number)
    raise typer.BadParameter(f"--limit takes a number of samples (100) or a share of them (0.1), not {text!r}.")


def expanded(names: Iterable[str], known: Sequence[str], kind: str) -> list[str]:
    """The names with every glob replaced by what it fits, once each; a name in brackets is not a glob.

    Raises:
        UnknownNameError: a glob fits nothing.
    """
    chosen: list[str] = []
    for name in names:
        if "(" in name or not any(mark in name for mark in "*?["):
            chosen.append(name)
            continue
        fitting = fnmatch.filter(known, name)
        if not fitting:
            raise UnknownNameError(kind, name, known)
        chosen += fitting
    return list(dict.fromkeys(chosen))
