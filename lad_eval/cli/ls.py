"""`lad-eval ls`: the names that the other commands take."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer


class Kind(str, Enum):
    """What can be listed."""

    tasks = "tasks"
    methods = "methods"
    models = "models"
    studies = "studies"


class Harness(str, Enum):
    """Harnesses whose own models can be listed."""

    vlmeval = "vlmeval"


def ls(
    what: Annotated[Kind, typer.Argument(help="What to list.")],
    harness: Annotated[
        Harness | None,
        typer.Option("--harness", help="With `models`: every model of this harness, whether it can be served, and why."),
    ] = None,
) -> None:
    """List tasks, methods, models, or the studies of `lad-eval paper`."""
    from lad_eval.terminal import write

    if harness is not None:
        if what is not Kind.models:
            raise typer.BadParameter(f"--harness goes with `ls models`, not with `ls {what.value}`.")
        from lad_eval.models.vlmeval.listing import listing as of_harness

        write("\n".join(of_harness()) + "\n")
        return
    from lad_eval.listing import listing

    write("\n".join(listing(what.value)) + "\n")
