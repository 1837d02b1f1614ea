"""`lad-eval compare`: is one method, or one run, better than another?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.options import Json, SomeMethods, expanded, listed
from lad_eval.cli.show import say_next


def compare(
    runs: Annotated[list[Path], typer.Argument(help="One run folder: its methods pair by pair. Two: the same method in both.")],
    methods: SomeMethods = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Compare every method with this one only, e.g. vanilla.")
    ] = None,
    json: Json = False,
) -> None:
    """Paired tests between the methods of a run, or between two runs, corrected for their number (Holm)."""
    from lad_eval.report.comparisons import comparisons_as_json, comparisons_as_text
    from lad_eval.run.compare import compare_runs, position_p_values
    from lad_eval.run.stored import load_run
    from lad_eval.terminal import write, write_json

    names = None if methods is None else expanded(listed(methods, "methods"), load_run(runs[0]).methods, "method")
    pairs = compare_runs(runs, names, against=against)
    if json:
        write_json(comparisons_as_json(pairs))
    else:
        write(comparisons_as_text(pairs, position_p_values(runs, names)) + "\n")
    say_next("lad-eval report")
