"""`lad-eval data export` and `import`: annotation files of the released code of LAD; `embed`: pictures of one's own."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.options import Quiet
from lad_eval.terminal import write


class Which(str, Enum):
    """Samples of which split."""

    test = "test"
    calibration = "calibration"


def export(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="Name or YAML file of a task on picture files.", show_default=False)
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON file to write.", show_default=False, dir_okay=False)],
    images: Annotated[
        str | None, typer.Option("--images", help="Folder to write before the pictures' names; default: where they are.")
    ] = None,
    split: Annotated[Which, typer.Option("--split", help="Which samples.")] = Which.test,
) -> None:
    """Write a task's samples as an annotation file of the released code (id, image_ids, index, target, caption)."""
    from lad_eval.tasks.registry import load_task
    from lad_eval.tasks.sources.retrieval_files import export_task

    count = export_task(load_task(task), file, split=split.value, images=images)
    write(f"{file}: {count} samples.\n")


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Annotation file (JSON).", show_default=False, dir_okay=False)],
    images: Annotated[Path, typer.Option("--images", help="Folder with the pictures.", file_okay=False, show_default=False)],
    name: Annotated[str, typer.Option("--name", help="Of the new task.", show_default=False)],
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration", help="Annotation file to calibrate on; default: the first samples of FILE.", dir_okay=False
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the task's YAML file.", file_okay=False)] = Path(),
    replace: Annotated[bool, typer.Option("--replace", help="Write over a task of that name.")] = False,
) -> None:
    """Make a task of an annotation file: write <name>.yaml, ready for `lad-eval run --tasks`."""
    from lad_eval.tasks.sources.retrieval_files import import_annotations

    made = import_annotations(file, images, name, calibration=calibration, to=out, overwrite=replace)
    shown = made if made.parts[:-1] else f"./{made}"
    write(f"{made}: a task; run it with `lad-eval run --model <model> --tasks {shown}`.\n")


def embed(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of pictures.", file_okay=False, show_default=False)],
    captions: Annotated[Path, typer.Argument(metavar="CAPTIONS", help="Captions file.", dir_okay=False, show_default=False)],
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="CLIP or SigLIP model, a hub id or a folder; default: openai/clip-vit-large-patch14."),
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="Of the encoder: cpu, cuda, ...")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Pictures the encoder sees at once.")] = None,
    allow_outside: Annotated[
        bool, typer.Option("--allow-outside", help="Names in the captions file may lead out of IMAGES.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Embed pictures of your own, so that tasks on them can have `setting: adversarial`; goes on where it was stopped."""
    from functools import partial

    from lad_eval.data.embeddings import BATCH_SIZE
    from lad_eval.data.embeddings_encoder import load_encoder
    from lad_eval.data.embeddings_own import embed_own
    from lad_eval.data.protocols import DEFAULT_ENCODER
    from lad_eval.run.progress import progress
    from lad_eval.run.silence import hush_libraries
    from lad_eval.tasks.sources.album import read_album

    hush_libraries(quiet=quiet)
    album = read_album(images, captions, allow_outside=allow_outside)
    model = load_encoder(encoder or DEFAULT_ENCODER, device=device)
    shown = partial(progress, shown=not quiet)
    found = embed_own(images, album.paths, album.first, model, shown, batch_size=batch_size or BATCH_SIZE)
    write(f"{images}: {len(found.names)} pictures and captions are embedded by {model.name}.\n")
