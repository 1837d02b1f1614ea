"""`lad-eval figure`: accuracy by the answer's position, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.options import Run, expanded, listed
from lad_eval.cli.show import say_next


def figure(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="Picture file: .svg, .png or .pdf.", dir_okay=False)] = Path("positions.svg"),
    methods: Annotated[
        str | None,
        typer.Option("--methods", help="Methods to draw; default: vanilla, and LAD or what helps more.", show_default=False),
    ] = None,
) -> None:
    """Draw accuracy by the position of the right image, with 95 % intervals; flat bars are a fair model."""
    from lad_eval.pages.positions import position_picture
    from lad_eval.run.stored import load_run
    from lad_eval.terminal import visible, write

    chosen = None if methods is None else expanded(listed(methods, "methods"), load_run(run).methods, "method")
    position_picture(run, out, chosen)
    write(f"{visible(str(out))}\n")
    say_next("lad-eval report")
