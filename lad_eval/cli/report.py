"""`lad-eval report`: finished runs as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.options import RESULTS, Quiet, Runs, SomeTasks, Studies, listed
from lad_eval.cli.show import say_next
from lad_eval.terminal import write

Folders = Annotated[
    list[Path] | None, typer.Argument(help="Run folders, or folders above them. Default: all of --runs.", show_default=False)
]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Only the runs of this model.")]


def report(
    folders: Folders = None,
    runs: Runs = RESULTS,
    model: Model = None,
    tasks: SomeTasks = None,
    studies: Studies = False,
    out: Annotated[Path, typer.Option("--out", help="The HTML file.", dir_okay=False)] = Path("report.html"),
    pictures: Annotated[int, typer.Option("--pictures", help="Samples of each run whose pictures the page holds.", min=0)] = 24,
    quiet: Quiet = False,
) -> None:
    """Write finished runs as one self-contained HTML page: the finding first, then figures, attention, calibration, every sample.

    Captions and pictures of a task of your own are found where the run saw them; if they have moved, name its file with --tasks.
    """
    from lad_eval.pages import write_report
    from lad_eval.pages.choose import choose
    from lad_eval.pages.load import definitions_of
    from lad_eval.run.progress import progress
    from lad_eval.tasks.registry import resolve

    names = None if tasks is None else resolve(listed(tasks, "tasks"))
    found = choose(folders or [runs], model, names, studies=studies)
    with progress("report", len(found), shown=not quiet, unit="runs") as advance:
        written = write_report(found, out, definitions=definitions_of(names or ()), pictured=pictures, advance=advance)
    write(
        f"{written.path}: {written.runs} run{'s' if written.runs > 1 else ''}, {written.samples} samples, "
        f"{written.pictured} of them with pictures, {written.size / 1e6:.1f} MB\n"
    )
    if not quiet:
        say_next(f"open {written.path} in a browser")
