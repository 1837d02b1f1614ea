"""`lad-eval compare`: is one method, or one run, better than another?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.options import Json, listed


def compare(
    runs: Annotated[list[Path], typer.Argument(help="One run folder: its methods pair by pair. Two: the same method in both.")],
    methods: Annotated[str | None, typer.Option("--methods", help="Default: all that are there.")] = None,
    json: Json = False,
) -> None:
    """Paired tests between the methods of a run, or between two runs, corrected for their number (Holm)."""
    from lad_eval.report.comparisons import comparisons_as_json, comparisons_as_text
    from lad_eval.run.compare import compare_runs, position_p_values
    from lad_eval.terminal import write, write_json

    names = None if methods is None else listed(methods, "methods")
    pairs = compare_runs(runs, names)
    if json:
        write_json(comparisons_as_json(pairs))
    else:
        write(comparisons_as_text(pairs, position_p_values(runs, names)) + "\n")
