"""`lad-eval run`: ask a model the tasks' questions once, decide with every method, write and print the figures."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.options import RESULTS, Json, Methods, Out, Quiet, Seed, listed

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
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Default: what fits.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16, float16; default: the model's.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps; default: the best there is.")] = None,
    attn: Annotated[str | None, typer.Option("--attn", help="Attention implementation: sdpa, flash_attention_2, ...")] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub model.")] = None,
    image_preparation: Annotated[str | None, typer.Option("--image-preparation", help="protocol (336 x 336) or native.")] = None,
    out: Out = RESULTS,
    overwrite: Annotated[
        Overwrite,
        typer.Option("--overwrite", help="missing: resume; never: only show what is finished; always: start afresh."),
    ] = Overwrite.missing,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on tasks, with every method from one pass of the model."""
    from lad_eval.cli.main import listen
    from lad_eval.run.execute import Settings, run_tasks
    from lad_eval.run.silence import hush_libraries

    listen(quiet=quiet)
    hush_libraries(quiet=quiet)
    settings = Settings(
        model=model,
        tasks=tuple(listed(tasks, "tasks")),
        methods=tuple(listed(methods, "methods")),
        limit=limit,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        attn=attn,
        revision=revision,
        image_preparation=image_preparation,
        out=Path(out),
        overwrite=overwrite.value,
        seed=seed,
        quiet=quiet,
    )
    rows = run_tasks(settings)
    if rows is not None:
        from lad_eval.cli.show import show_rows

        show_rows(rows, "json" if json else "rich")
