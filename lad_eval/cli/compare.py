"""`lad-eval compare`: is one method, or one run, better than another?"""

from __future__ import annotations

import sys
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

    names = None if methods is None else listed(methods, "methods")
    pairs = compare_runs(runs, names)
    sys.stdout.write((comparisons_as_json(pairs) if json else comparisons_as_text(pairs, position_p_values(runs, names))) + "\n")
