"""`lad-eval score`: decide again from stored evidence, without a model."""

from __future__ import annotations

from typing import Annotated

import typer

from lad_eval.cli.options import Json, Reported, Run, Seed, expanded, listed


def score(
    run: Run,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A parameter, e.g. lad.top_k=4; may be repeated.")] = None,
    methods: Annotated[str | None, typer.Option("--methods", help="Default: those of the run.")] = None,
    seed: Seed = 42,
    reported: Reported = False,
    json: Json = False,
) -> None:
    """Decide again from a run's stored evidence, with other methods or other parameters; no model is needed."""
    from lad_eval.cli.show import say_next, show_rows
    from lad_eval.methods import method_names
    from lad_eval.report.rows import reported_rows, rows_of
    from lad_eval.run.rescore import rescore
    from lad_eval.run.silence import hush_libraries

    hush_libraries(quiet=False)
    names = None if methods is None else expanded(listed(methods, "methods"), method_names(), "method")
    metrics = rescore(run, names, settings=set_ or (), seed=seed)
    beside = reported_rows(metrics) if reported else []
    show_rows([*rows_of(metrics), *beside], "json" if json else "rich")
    say_next("lad-eval run with the same --methods, to keep these figures")
