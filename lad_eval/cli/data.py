"""`lad-eval data`: bring data sets to where tasks can be run on them."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_eval.cli import annotations as annotation_files
from lad_eval.cli.options import Quiet
from lad_eval.errors import DataError, UserError
from lad_eval.terminal import visible, write

if TYPE_CHECKING:
    from lad_eval.data.dataset import DataSet, Progress

app = typer.Typer(
    name="data",
    help="Bring data sets to where tasks can be run on them: prepare, status, verify; embed pictures of your own; "
    "export and import annotation files.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("export")(annotation_files.export)
app.command("import")(annotation_files.import_)
app.command("embed")(annotation_files.embed)


class StoppedError(UserError):
    """Ctrl-C, with what to do about it."""

    exit_code = 130


class Protocol(str, Enum):
    """Which samples are drawn."""

    official = "official"
    strict = "strict"
    both = "both"


Name = Annotated[str, typer.Argument(metavar="NAME", help="coco, flickr8k or mmiu.", show_default=False)]
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
            help="Folder with the files that you have, and where the others go; default: where it was prepared before, "
            "else a folder in your cache.",
            file_okay=False,
        ),
    ] = None,
    download: Annotated[bool, typer.Option("--download/--no-download", help="Fetch what is missing.")] = True,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="CLIP or SigLIP model for embeddings, a hub id or a folder.")
    ] = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option("--protocol", help="official: the released script's draws; strict: the paper's text."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="Of the encoder: cpu, cuda, ...")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Pictures the encoder sees at once.")] = None,
    quiet: Quiet = False,
) -> None:
    """Fetch, unpack and prepare a data set; what is done already is not done again."""
    from lad_eval.cli.main import listen
    from lad_eval.data.dataset import PrepareOptions, load_dataset
    from lad_eval.data.prepare import prepare as bring
    from lad_eval.run.silence import hush_libraries

    listen(quiet=quiet)
    dataset = load_dataset(name)
    hush_libraries(quiet=quiet)
    options = PrepareOptions(
        download=download and not _offline(),
        encoder=encoder,
        protocol=None if protocol is None else protocol.value,
        device=device,
        batch_size=batch_size,
    )
    try:
        folder = bring(dataset, root, options, _progress(quiet=quiet))
    except KeyboardInterrupt:
        raise StoppedError("Interrupted: what was fetched and made is kept; the same command goes on from there.") from None
    _show(dataset, folder)


@app.command("status")
def status(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One of them; default: all.")] = None, root: Root = None
) -> None:
    """Tell what is there and what is missing, and where to get it."""
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
    """Read everything of a data set and name every fault; exit code 1 where there is one."""
    from lad_eval.data.dataset import load_dataset
    from lad_eval.data.prepare import verify as look_through

    problems = look_through(load_dataset(name), root, _progress(quiet=quiet))
    if problems:
        write("\n".join(problems) + "\n")
        sys.stderr.write(f"{visible(name)}: {len(problems)} fault{'s' if len(problems) > 1 else ''}.\n")
        raise typer.Exit(1)
    write(f"{name}: no faults.\n")


def _show_or_tell(name: str) -> None:
    """One of several, whose fault must not hide the others."""
    from lad_eval.data.dataset import load_dataset

    try:
        _show(load_dataset(name), None)
    except DataError as error:
        write(f"{name}: {error}\n")


def _show(dataset: DataSet, root: Path | None) -> None:
    from lad_eval.data.prepare import status as look

    folder, found = look(dataset, root)
    if folder is None:
        write(f"{dataset.name}: not prepared; run `lad-eval data prepare {dataset.name} --root <folder>`.\n")
        lines = [f"{file.name}: {file.purpose}{_from(file.url)}" for file in dataset.files if file.required]
    else:
        write(f"{dataset.name}: {'ready' if found.ready else 'not ready'}, in {folder}\n")
        lines = list(found.lines)
    write("".join(f"  {line}\n" for line in lines))


def _from(url: str | None) -> str:
    return f", from {url}" if url else ""


def _progress(*, quiet: bool) -> Progress:
    import functools

    from lad_eval.run.progress import progress

    return functools.partial(progress, shown=not quiet)


def _offline() -> bool:
    """Whether the user has told the hub's libraries to fetch nothing."""
    import os

    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "ON", "YES")
