"""`lad-eval figure`: accuracy by the answer's position, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.options import Run, listed


def figure(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="Picture file: .svg, .png or .pdf.", dir_okay=False)] = Path("positions.svg"),
    methods: Annotated[str, typer.Option("--methods", help="Methods to draw.")] = "vanilla,lad",
) -> None:
    """Draw accuracy by the position of the right image; a flat line is a fair model."""
    from lad_eval.report.figure import draw_positions
    from lad_eval.run.stored import load_run

    stored = load_run(run)
    recalls = {name: stored.recall_of(name) for name in listed(methods, "methods")}
    draw_positions(recalls, f"{stored.metrics['task']} · {stored.metrics['model']}", out)
