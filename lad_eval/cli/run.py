"""`lad-eval run`: ask a model the tasks' questions once, decide with every method, write and print the figures."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.options import (
    RESULTS,
    Adapter,
    Date,
    ImagePreparation,
    Json,
    Methods,
    Out,
    PreparedAs,
    Quiet,
    Reported,
    Revision,
    Seed,
    TrustRemoteCode,
    listed,
)
from lad_eval.models.date import DEFAULT_DATE

DEFAULT_METHODS = "vanilla,pride,lad,raw-attention,purified-attention,permutation-average"


class Overwrite(str, Enum):
    """What becomes of a run's results that are there already."""

    never = "never"
    missing = "missing"
    always = "always"


def run(
    model: Annotated[str, typer.Option("--model", "-m", help="`lad-tiny`, a local folder, a hub id, or `random:<family>`.")],
    tasks: Annotated[str, typer.Option("--tasks", "-t", help="Tasks or groups of tasks, separated by commas.")],
    methods: Methods = DEFAULT_METHODS,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Ask only the first samples of each task.")] = None,
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
    out: Out = RESULTS,
    overwrite: Annotated[
        Overwrite,
        typer.Option("--overwrite", help="missing: resume; never: only show what is finished; always: start afresh."),
    ] = Overwrite.missing,
    seed: Seed = 42,
    calibrate_on: Annotated[
        str | None, typer.Option("--calibrate-on", help="Take the calibration samples from another task of as many candidates.")
    ] = None,
    reported: Reported = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on tasks, with every method from one pass of the model."""
    from lad_eval.cli.main import listen
    from lad_eval.run.silence import hush_libraries

    listen(quiet=quiet)
    hush_libraries(quiet=quiet)
    from lad_eval.models.batching import check_batch_size
    from lad_eval.run.execute import Settings, run_tasks

    settings = Settings(
        model=model,
        tasks=tuple(listed(tasks, "tasks")),
        methods=tuple(listed(methods, "methods")),
        limit=limit,
        batch_size=check_batch_size(batch_size),
        dtype=dtype,
        device=device,
        attn=attn,
        revision=revision,
        adapter=adapter,
        image_preparation=image_preparation.value,
        trust_remote_code=trust_remote_code,
        date=date,
        out=Path(out),
        overwrite=overwrite.value,
        seed=seed,
        quiet=quiet,
        calibrate_on=calibrate_on,
        reported=reported,
    )
    rows = run_tasks(settings)
    if rows is not None:
        from lad_eval.cli.show import show_rows

        show_rows(rows, "json" if json else "rich")
