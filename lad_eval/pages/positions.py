"""The picture of `lad-eval figure`: what a run found, without the rest of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lad_eval.pages.answers import answers_of
from lad_eval.pages.finding import finding_of
from lad_eval.pages.recalls import recalls_of
from lad_eval.pages.text import clean
from lad_eval.report.figure import PositionBars, draw_positions
from lad_eval.run.folder import ResultsError
from lad_eval.run.stored import load_run


def position_picture(path: Path, out: Path, methods: Sequence[str] | None = None) -> None:
    """Draws a run's recall by position into a picture file.

    Args:
        path: the run's folder, or a folder above it that holds no other run.
        out: the file: .svg, .png or .pdf.
        methods: in their order; default: those of the run's finding.

    Raises:
        UserError: there is no such run, it lacks a method, or the file cannot be written.
    """
    run = load_run(path)
    for name in methods or ():
        run.recall_of(name)
    finding = finding_of(run.metrics)
    shown = list(methods or (finding.methods if finding else ()))
    recalls = recalls_of(run.metrics, answers_of(run.predictions(), int(run.metrics["candidates"])))
    if missing := [name for name in shown if name not in recalls] or (not shown and ["any method"]):
        raise ResultsError(f"{run.path} holds no recall by position of {', '.join(missing)}.")
    alike = finding is not None and set(shown) == set(finding.methods)
    title = finding.title if finding is not None and alike else "Found, by the position of the right image"
    samples, orders = run.metrics.get("counts", {}).get("samples"), run.metrics.get("counts", {}).get("permutations")
    asked = f"{samples} samples x {orders} orders, 95 % intervals"
    bars = [PositionBars(one.name, one.values, one.low, one.high) for one in map(recalls.__getitem__, shown)]
    draw_positions(bars, title, f"{clean(run.metrics['model'])} · {clean(run.metrics['task'])} · {asked}", out)
