"""`lad-eval leaderboard`: every finished run in one set of tables."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from lad_eval.cli.options import RESULTS, Out, Reported


class Form(str, Enum):
    """Forms of a table."""

    rich = "rich"
    md = "md"
    latex = "latex"
    csv = "csv"
    json = "json"


def leaderboard(
    out: Out = RESULTS,
    form: Annotated[Form, typer.Option("--format", "-f", help="How the tables are written.")] = Form.rich,
    reported: Reported = False,
) -> None:
    """Gather the figures of all runs."""
    from lad_eval.cli.show import show_rows
    from lad_eval.run.gather import gather

    show_rows(gather(out, reported=reported), form.value)
