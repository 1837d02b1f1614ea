"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

RESULTS = Path("results/runs")
_NOT_IN_BRACKETS = re.compile(r",(?![^()]*\))")

Methods = Annotated[str, typer.Option("--methods", help="Methods, separated by commas; `lad-eval ls methods` lists them.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, a list of rows, and nothing else, to stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only warnings.")]
Reported = Annotated[bool, typer.Option("--reported", help="Show published figures of the same model below ours, marked.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of the bootstrap and of `random:` models.", min=0)]
Out = Annotated[Path, typer.Option("--out", help="Where runs are kept.", file_okay=False)]
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
