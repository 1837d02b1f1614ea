"""Options that several commands share."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

RESULTS = Path("results/runs")
_NOT_IN_BRACKETS = re.compile(r",(?![^()]*\))")


class ImagePreparation(str, Enum):
    """How images reach the model."""

    protocol = "protocol"
    native = "native"


Methods = Annotated[str, typer.Option("--methods", help="Methods, separated by commas; `lad-eval ls methods` lists them.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, a list of rows, and nothing else, to stdout.")]
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
