"""`lad-eval study`: the tables and figures of a paper, for any model."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_eval.cli.console import log_next_steps, set_up_output
from lad_eval.cli.options import (
    RESULTS,
    Adapter,
    Attention,
    BatchSize,
    Device,
    Dtype,
    ImagePreparation,
    IncludePath,
    Model,
    PreparedAs,
    Quiet,
    Revision,
    Runs,
    Seed,
    TrustRemoteCode,
)

if TYPE_CHECKING:
    from lad_eval.studies.output import StudyOutput

app = typer.Typer(name="study", help="Regenerate a paper's tables and figures for a model.", no_args_is_help=True)

WRITTEN = Path("results/paper")
SCENES_LIMIT = 50
PRUNING = Path("results/study/pruning")
KEY_SPACE = Path("results/study/key-space")
KEY_SPACE_TASKS = "scenes_adversarial_n4,scenes_random_n2"
CAPL = Path("results/study/capl")
CAPL_TASKS = "scenes_relations_n5"
Out = Annotated[Path, typer.Option("--out", "-o", help="Where tables and figures are written.", file_okay=False)]
KEEP = "1.0,0.5,0.25,0.125,0"


class Heads(str, Enum):
    """Whose keys are compared."""

    all = "all"
    each = "each"


def _show(output: StudyOutput | None) -> None:
    """Prints the path of the page, and what it does not show."""
    from lad_eval.terminal import visible

    if output is None:  # not the main process
        return
    for document in output.documents:
        for line in document.missing:
            typer.echo(visible(f"{document.name}: not shown: {line}"), err=True)
    typer.echo(visible(str(output.page)))
    log_next_steps(f"open {output.page} in a browser", written=output.folder)


@app.command("lad")
def lad(
    model: Model,
    only: Annotated[
        str | None, typer.Option("--only", help="Tables and figures, separated by commas, e.g. table4,figure6.")
    ] = None,
    family: Annotated[
        str | None, typer.Option("--family", help="Tasks to run, e.g. coco or scenes; default: coco, for built-in models scenes.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=0, help="Only the first samples of each task; default: 50 of scenes, else all. 0: all."),
    ] = None,
    stored: Annotated[bool, typer.Option("--stored", help="Use finished runs; load no model.")] = False,
    batch_size: BatchSize = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn: Attention = None,
    revision: Revision = None,
    trust_remote_code: TrustRemoteCode = False,
    runs: Runs = RESULTS,
    out: Out = WRITTEN,
    seed: Seed = 42,
    quiet: Quiet = False,
    include_path: IncludePath = None,
) -> None:
    """Logit-Attention Divergence, for a model: Markdown, LaTeX, CSV, SVG, PDF and one HTML page."""
    set_up_output(quiet=quiet)
    from lad_eval.models.base import check_batch_size
    from lad_eval.models.registry import model_names
    from lad_eval.run.settings import Settings
    from lad_eval.studies.lad.family import task_family
    from lad_eval.studies.lad.run import lad_study, select_parts

    names = None if only is None else select_parts([name.strip() for name in only.split(",") if name.strip()])
    tasks = task_family(family or ("scenes" if model in model_names() else "coco"))
    if limit is None and tasks.name == "scenes":
        limit = SCENES_LIMIT
    settings = Settings(
        model=model,
        limit=limit or None,
        batch_size=check_batch_size(batch_size),
        dtype=dtype,
        device=device,
        attn=attn,
        revision=revision,
        trust_remote_code=trust_remote_code,
        out=runs,
        seed=seed,
        quiet=quiet,
        study="lad",
    )
    _show(lad_study(settings, tasks, out, only=names, stored=stored))


@app.command("pruning")
def pruning(
    model: Model,
    task: Annotated[str, typer.Option("--tasks", "--task", "-t", help="The task to evaluate on.")] = "scenes_adversarial_n4",
    pruner: Annotated[
        str, typer.Option("--pruner", help="Pruners that rank tokens by attention, separated by commas, e.g. fastv,himap.")
    ] = "fastv",
    keep: Annotated[str, typer.Option("--keep", help="Shares of the visual tokens, separated by commas.")] = KEEP,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Only the first samples of the task. 0: all.")] = SCENES_LIMIT,
    stored: Annotated[bool, typer.Option("--stored", help="Use a finished run; load no model.")] = False,
    batch_size: BatchSize = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn: Attention = None,
    revision: Revision = None,
    image_preparation: PreparedAs = ImagePreparation.protocol,
    trust_remote_code: TrustRemoteCode = False,
    runs: Runs = RESULTS,
    out: Out = PRUNING,
    seed: Seed = 42,
    quiet: Quiet = False,
    include_path: IncludePath = None,
) -> None:
    """Pruning visual tokens: what it costs and saves, and what removing attention's trend from the ranking recovers."""
    set_up_output(quiet=quiet)
    from lad_eval.models.base import check_batch_size
    from lad_eval.run.settings import Settings
    from lad_eval.studies.pruning.conditions import parse_keeps, parse_pruners
    from lad_eval.studies.pruning.run import STUDY, pruning_study

    keeps, pruners = parse_keeps(keep), parse_pruners(pruner)
    settings = Settings(
        model=model,
        limit=limit or None,
        batch_size=check_batch_size(batch_size),
        dtype=dtype,
        device=device,
        attn=attn,
        revision=revision,
        image_preparation=image_preparation.value,
        trust_remote_code=trust_remote_code,
        out=runs,
        seed=seed,
        quiet=quiet,
        study=STUDY,
    )
    _show(pruning_study(settings, task, keeps, pruners, out, stored=stored))


@app.command("key-space")
def key_space(
    model: Model,
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks", "-t", help="The task whose prompts are used and, as a control, a second one, separated by a comma."
        ),
    ] = KEY_SPACE_TASKS,
    layers: Annotated[
        str | None, typer.Option("--layers", help="Decoder layers, separated by commas, or all; default: 5 evenly spaced.")
    ] = None,
    points: Annotated[int, typer.Option("--points", min=0, help="Tokens per modality in the t-SNE plots. 0: no plots.")] = 300,
    heads: Annotated[Heads, typer.Option("--heads", help="All heads concatenated, or also each head alone.")] = Heads.all,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Only the first samples of a task. 0: all.")] = 200,
    stored: Annotated[bool, typer.Option("--stored", help="Read what was measured before; load no model.")] = False,
    batch_size: BatchSize = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn: Attention = None,
    revision: Revision = None,
    image_preparation: PreparedAs = ImagePreparation.protocol,
    trust_remote_code: TrustRemoteCode = False,
    out: Out = KEY_SPACE,
    seed: Seed = 0,
    quiet: Quiet = False,
    include_path: IncludePath = None,
) -> None:
    """Keys of visual and text tokens: the distance between them, also with random weights, and its relation to attention."""
    set_up_output(quiet=quiet)
    from lad_eval.models.base import check_batch_size
    from lad_eval.run.settings import Settings
    from lad_eval.studies.key_space.collect import Scope
    from lad_eval.studies.key_space.run import STUDY, key_space_study

    settings = Settings(
        model=model,
        tasks=tuple(name.strip() for name in tasks.split(",") if name.strip()),
        limit=limit or None,
        batch_size=check_batch_size(batch_size),
        dtype=dtype,
        device=device,
        attn=attn,
        revision=revision,
        image_preparation=image_preparation.value,
        trust_remote_code=trust_remote_code,
        seed=seed,
        quiet=quiet,
        study=STUDY,
    )
    _show(key_space_study(settings, Scope(layers, points, heads is Heads.each), out, from_stored=stored))


@app.command("capl")
def capl(
    model: Model = "lad-tiny-relations",
    adapter: Adapter = None,
    tasks: Annotated[
        str, typer.Option("--tasks", "-t", help="Tasks, commas: first one whose images must be compared, then controls.")
    ] = CAPL_TASKS,
    attention: Annotated[
        str | None,
        typer.Option("--attention", help="Fused attention, e.g. capl(rho=0.9); default: that of the adapter, or capl."),
    ] = None,
    rival: Annotated[str, typer.Option("--rival", help="An intervention to compare with, or none.")] = "delimiter-scaling",
    limit: Annotated[int, typer.Option("--limit", min=0, help="The first samples of a task only. 0: all.")] = SCENES_LIMIT,
    stored: Annotated[bool, typer.Option("--stored", help="Read finished runs; load no model.")] = False,
    batch_size: BatchSize = "auto",
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn: Attention = None,
    revision: Revision = None,
    image_preparation: PreparedAs = ImagePreparation.protocol,
    trust_remote_code: TrustRemoteCode = False,
    runs: Runs = RESULTS,
    out: Out = CAPL,
    seed: Seed = 42,
    quiet: Quiet = False,
    include_path: IncludePath = None,
) -> None:
    """Attention between images: opened, closed and trained on; what answers need other images, and where they stand."""
    set_up_output(quiet=quiet)
    from lad_eval.models.base import check_batch_size
    from lad_eval.run.settings import Settings
    from lad_eval.studies.capl.run import STUDY, capl_study

    settings = Settings(
        model=model,
        adapter=adapter,
        tasks=tuple(name.strip() for name in tasks.split(",") if name.strip()),
        limit=limit or None,
        batch_size=check_batch_size(batch_size),
        dtype=dtype,
        device=device,
        attn=attn,
        revision=revision,
        image_preparation=image_preparation.value,
        trust_remote_code=trust_remote_code,
        out=runs,
        seed=seed,
        quiet=quiet,
        study=STUDY,
    )
    _show(capl_study(settings, attention, rival, out, stored=stored))
