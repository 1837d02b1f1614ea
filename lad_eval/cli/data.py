"""`lad-eval data`: prepare data sets so that tasks can be run on them."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_eval.cli.options import IncludePath, Quiet
from lad_eval.errors import DataError, UserError
from lad_eval.terminal import counted, visible, write

if TYPE_CHECKING:
    from lad_eval.data.dataset import DataSet, Progress


app = typer.Typer(
    name="data",
    help="Prepare data sets for tasks: prepare, status, verify; embed your own images; export and import annotation files.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class StoppedError(UserError):
    """Ctrl-C, with how to continue."""

    exit_code = 130


class Protocol(str, Enum):
    """Which samples are drawn."""

    official = "official"
    strict = "strict"
    both = "both"


Name = Annotated[str, typer.Argument(metavar="NAME", help="coco, flickr8k, mmiu, blink or muirbench.", show_default=False)]
Root = Annotated[
    Path | None,
    typer.Option("--root", help="The data set's folder; default: where it was prepared before.", file_okay=False),
]


@app.command("prepare")
def prepare(
    name: Name,
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            help="Folder for the files, those that you have included; default: where it was prepared before, else your cache.",
            file_okay=False,
        ),
    ] = None,
    download: Annotated[bool, typer.Option("--download/--no-download", help="Download what is missing.")] = True,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="CLIP or SigLIP model for embeddings, a hub id or a folder.")
    ] = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option("--protocol", help="official: the released script's draws; strict: the paper's text."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="Device of the encoder: cpu, cuda, ...")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Batch size of the encoder.")] = None,
    quiet: Quiet = False,
) -> None:
    """Download, unpack and prepare a data set; finished steps are not repeated."""
    from lad_eval.cli.console import set_up_output
    from lad_eval.data.dataset import PrepareOptions, load_dataset
    from lad_eval.data.prepare import prepare as prepare_data

    set_up_output(quiet=quiet)
    dataset = load_dataset(name)
    options = PrepareOptions(
        download=download and not _offline(),
        encoder=encoder,
        protocol=None if protocol is None else protocol.value,
        device=device,
        batch_size=batch_size,
    )
    try:
        folder = prepare_data(dataset, root, options, _progress(quiet=quiet))
    except KeyboardInterrupt:
        raise StoppedError("Interrupted: finished downloads and steps are kept; the same command resumes from there.") from None
    _show(dataset, folder)


@app.command("status")
def status(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One data set; default: all.")] = None, root: Root = None
) -> None:
    """Show what is present, what is missing, and where to get it."""
    from lad_eval.data.dataset import DATASETS, load_dataset

    if name is None and root is not None:
        raise typer.BadParameter("--root is one data set's folder; name the data set.")
    if name is not None:
        _show(load_dataset(name), root)
        return
    for each in DATASETS:
        _show_or_tell(each)


@app.command("verify")
def verify(name: Name, root: Root = None, quiet: Quiet = False) -> None:
    """Read a whole data set and list every fault; exit code 1 if there are any."""
    from lad_eval.data.dataset import load_dataset
    from lad_eval.data.prepare import verify as look_through

    problems = look_through(load_dataset(name), root, _progress(quiet=quiet))
    if problems:
        write("\n".join(problems) + "\n")
        sys.stderr.write(f"{visible(name)}: {len(problems)} fault{'s' if len(problems) > 1 else ''}.\n")
        raise typer.Exit(1)
    write(f"{name}: no faults.\n")


def _show_or_tell(name: str) -> None:
    """One of several data sets; its faults must not hide those of the others."""
    from lad_eval.data.dataset import load_dataset

    try:
        _show(load_dataset(name), None)
    except DataError as error:
        write(f"{name}: {error}\n")


def _show(dataset: DataSet, root: Path | None) -> None:
    from lad_eval.data.prepare import status as status_of

    folder, state = status_of(dataset, root)
    if folder is None:
        write(f"{dataset.name}: not prepared; run `lad-eval data prepare {dataset.name} --root <folder>`.\n")
        lines = [f"{file.name}: {file.purpose}{_from(file.url)}" for file in dataset.files if file.required]
    else:
        write(f"{dataset.name}: {'ready' if state.ready else 'not ready'}, in {folder}\n")
        lines = list(state.lines)
    write("".join(f"  {line}\n" for line in lines))


def _from(url: str | None) -> str:
    return f", from {url}" if url else ""


def _progress(*, quiet: bool) -> Progress:
    import functools

    from lad_eval.run.progress import progress

    return functools.partial(progress, shown=not quiet)


def _offline() -> bool:
    """Whether the hub's libraries are switched offline."""
    import os

    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "ON", "YES")


class Which(str, Enum):
    """Split of the samples."""

    test = "test"
    calibration = "calibration"


@app.command("export")
def export(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Name or YAML file of a task on image files.", show_default=False)],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON file to write.", show_default=False, dir_okay=False)],
    images: Annotated[
        str | None, typer.Option("--images", help="Folder to write in front of the images' names; default: their folder.")
    ] = None,
    split: Annotated[Which, typer.Option("--split", help="The split.")] = Which.test,
    include_path: IncludePath = None,
) -> None:
    """Write a task's samples as an annotation file of the released code (id, image_ids, index, target, caption)."""
    from lad_eval.tasks.registry import load_task
    from lad_eval.tasks.sources.retrieval_files import export_task

    count = export_task(load_task(task), file, split=split.value, images=images)
    write(f"{file}: {counted(count, 'sample')}.\n")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Annotation file (JSON).", show_default=False, dir_okay=False)],
    images: Annotated[Path, typer.Option("--images", help="Folder with the images.", file_okay=False, show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Name of the new task.", show_default=False)],
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration", help="Annotation file to calibrate on; default: the first samples of FILE.", dir_okay=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the task's YAML file.", file_okay=False)] = Path(),
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite a task of that name.")] = False,
) -> None:
    """Make a task from an annotation file: write <name>.yaml, ready for `lad-eval run --tasks`."""
    from lad_eval.tasks.sources.retrieval_files import import_annotations

    made = import_annotations(file, images, name, calibration=calibration, to=out, overwrite=replace)
    shown = made if made.parts[:-1] else f"./{made}"
    write(f"{made}: a task; run it with `lad-eval run --model <model> --tasks {shown}`.\n")


@app.command("embed")
def embed(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of images.", file_okay=False, show_default=False)],
    captions: Annotated[Path, typer.Argument(metavar="CAPTIONS", help="Captions file.", dir_okay=False, show_default=False)],
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="CLIP or SigLIP model, a hub id or a folder; default: openai/clip-vit-large-patch14."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="Device of the encoder: cpu, cuda, ...")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Batch size of the encoder.")] = None,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Allow paths in the captions file that lead outside IMAGES.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Embed your own images, so that tasks on them can have `setting: adversarial`; resumes where it was stopped."""
    from functools import partial

    from lad_eval.cli.console import quiet_libraries
    from lad_eval.data.retrieval.embeddings import BATCH_SIZE, embed_own
    from lad_eval.data.retrieval.encoder import load_encoder
    from lad_eval.data.retrieval.protocols import DEFAULT_ENCODER
    from lad_eval.run.progress import progress
    from lad_eval.tasks.sources.captioned_images import read_captioned_images

    quiet_libraries(quiet=quiet)
    captioned = read_captioned_images(images, captions, allow_outside=allow_outside)
    model = load_encoder(encoder or DEFAULT_ENCODER, device=device)
    shown = partial(progress, shown=not quiet)
    embeddings = embed_own(images, captioned.paths, captioned.first, model, shown, batch_size=batch_size or BATCH_SIZE)
    write(f"{images}: {len(embeddings.names)} images and captions are embedded by {model.name}.\n")
