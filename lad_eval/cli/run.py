"""`lad-eval run`: ask a model the tasks' questions once, decide with every method, write and print the figures."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import Annotated

import typer

from lad_eval.cli.config import Config, model_options
from lad_eval.cli.options import (
    RESULTS,
    Adapter,
    Date,
    ImagePreparation,
    Json,
    Methods,
    Model,
    PreparedAs,
    Quiet,
    Reported,
    Revision,
    Runs,
    Seed,
    Tasks,
    TrustRemoteCode,
    expanded,
    limit_of,
    listed,
)
from lad_eval.models.date import DEFAULT_DATE

DEFAULT_METHODS = "vanilla,pride,lad,raw-attention,purified-attention"
"""One pass a question serves all of them; averaging over orders would cost N."""


class Overwrite(str, Enum):
    """What becomes of a run's results that are there already."""

    never = "never"
    missing = "missing"
    always = "always"


def run(
    context: typer.Context,
    model: Model,
    tasks: Tasks,
    methods: Methods = DEFAULT_METHODS,
    limit: Annotated[
        str | None,
        typer.Option("--limit", metavar="NUMBER", help="Only the first samples of each task: 100, or 0.1 for a tenth."),
    ] = None,
    batch_size: Annotated[
        str, typer.Option("--batch-size", help="Requests a pass, or auto: as many as are useful and fit.")
    ] = "auto",
    dtype: Annotated[
        str, typer.Option("--dtype", help="float32, bfloat16, float16, or auto: float32 on the CPU, else bfloat16.")
    ] = "auto",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, mps, or auto: a GPU if there is one.")] = "auto",
    attn: Annotated[str | None, typer.Option("--attn", help="sdpa, flash_attention_2, ...; default: the model's.")] = None,
    revision: Revision = None,
    adapter: Adapter = None,
    image_preparation: PreparedAs = ImagePreparation.protocol,
    trust_remote_code: TrustRemoteCode = False,
    date: Date = DEFAULT_DATE,
    model_args: Annotated[
        str | None,
        typer.Option("--model-args", help="As in lm-eval: pretrained=<model>,dtype=bfloat16,... with --model hf."),
    ] = None,
    runs: Runs = RESULTS,
    overwrite: Annotated[
        Overwrite,
        typer.Option("--overwrite", help="missing: resume; never: only show what is finished; always: start over."),
    ] = Overwrite.missing,
    seed: Seed = 42,
    calibrate_on: Annotated[
        str | None, typer.Option("--calibrate-on", help="Take the calibration samples from another task of as many candidates.")
    ] = None,
    reported: Reported = False,
    json: Json = False,
    quiet: Quiet = False,
    config: Config = None,
) -> None:
    """Measure a model on tasks, with every method from one pass of the model."""
    from lad_eval.cli.main import listen
    from lad_eval.run.silence import hush_libraries

    listen(quiet=quiet)
    hush_libraries(quiet=quiet)
    from lad_eval.methods import method_names
    from lad_eval.models.base import check_batch_size
    from lad_eval.run.execute import Settings, run_tasks

    settings = Settings(
        model=model,
        batch_size=check_batch_size(batch_size),
        dtype=dtype,
        device=device,
        attn=attn,
        revision=revision,
        adapter=adapter,
        image_preparation=image_preparation.value,
        trust_remote_code=trust_remote_code,
        date=date,
        tasks=tuple(listed(tasks, "tasks")),
        methods=tuple(expanded(listed(methods, "methods"), method_names(), "method")),
        limit=limit_of(limit),
        out=runs,
        overwrite=overwrite.value,
        seed=seed,
        quiet=quiet,
        calibrate_on=calibrate_on,
        reported=reported,
    )
    if model_args is not None:
        settings = replace(settings, **model_options(model_args, model))
    rows = run_tasks(settings)
    if rows is not None:
        from lad_eval.cli.show import say_next, show_rows
        from lad_eval.run.folder import slug

        show_rows(rows, "json" if json else "rich")
        kept = runs / slug(rows[0].model)
        say_next("lad-eval report", f"lad-eval compare {kept / slug(rows[0].task)} --against vanilla", kept=kept)
