"""`lad-eval ls`: the names that the other commands take."""

from __future__ import annotations

import sys
from enum import Enum
from typing import Annotated

import typer


class Kind(str, Enum):
    """What can be listed."""

    tasks = "tasks"
    methods = "methods"
    models = "models"


def ls(what: Annotated[Kind, typer.Argument(help="What to list.")]) -> None:
    """List tasks, methods or models."""
    from lad_eval.report.listing import listing

    sys.stdout.write("\n".join(listing(what.value)) + "\n")
