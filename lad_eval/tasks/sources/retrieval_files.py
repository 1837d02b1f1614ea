"""Converts tasks to annotation files of the released code of LAD, and such files to tasks."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lad_eval.data.retrieval.annotations import Annotation, read_annotations, write_annotations
from lad_eval.errors import DataError
from lad_eval.files.atomic import write_text
from lad_eval.tasks.files import shown
from lad_eval.tasks.request import Split
from lad_eval.tasks.sources.base import Picture
from lad_eval.tasks.task import Task


def export_task(task: Task, path: Path, *, split: Split = "test", images: str | None = None) -> int:
    """Writes the samples of a task as an annotation file.

    Args:
        task: its pictures must be files.
        path: of the annotation file.
        split: which samples.
        images: folder to write before the pictures' names (file names; where two are equal, paths from the folder that all
            pictures share); None: the folder they are in.

    Returns:
        How many samples were written.

    Raises:
        DataError: the pictures are not files, or the file cannot be written.
    """
    entries = []
    for number, sample in enumerate(task.samples(split)):
        if not all(isinstance(image, Picture) for image in sample.images):
            raise DataError(f"{task.name}: its pictures are rendered when needed; only tasks on picture files can be exported.")
        files = [image.path.parent.resolve() / image.path.name for image in sample.images if isinstance(image, Picture)]
        entries.append(Annotation(number, tuple(map(str, files)), sample.gold, files[sample.gold].name, sample.caption))
    if images is not None:
        entries = _moved(entries, images)
    write_annotations(path, entries)
    return len(entries)


def import_annotations(
    path: Path, images: Path, name: str, *, calibration: Path | None = None, to: Path, overwrite: bool = False
) -> Path:
    """Makes a task of an annotation file: writes `<name>.yaml` into a folder and opens it.

    Raises:
        DataError: a file or a picture is missing or damaged, the name is invalid, or the task exists.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise DataError(f"{name!r} cannot be a task's name: letters, digits, and _ . - after the first.")
    entries = read_annotations(path)
    target = to / f"{name}.yaml"
    if target.exists() and not overwrite:
        raise DataError(f"{shown(target)} exists; choose another --name, or --replace it.")
    lines = [
        f"# Made by `lad-eval data import` from {path.name}, {len(entries)} samples.",
        "source: annotations",
        "setting: given",
        f"candidates: {len(entries[0].image_ids)}",
        "data:",
        f"  file: {_quoted(_relative(path, to))}",
        f"  images: {_quoted(_relative(images, to))}",
        *([f"  calibration: {_quoted(_relative(calibration, to))}"] if calibration is not None else []),
    ]
    from lad_eval.tasks.sources.retrieval import AnnotationsOptions

    options = AnnotationsOptions(
        file=str(path.absolute()),
        images=str(images.absolute()),
        calibration=None if calibration is None else str(calibration.absolute()),
    )
    options.open(setting="given", candidates=len(entries[0].image_ids), samples=None, calibration_samples=5, folder=to)
    try:
        to.mkdir(parents=True, exist_ok=True)
        write_text(target, "\n".join(lines) + "\n")
    except OSError as error:
        raise DataError(f"{shown(target)}: cannot be written: {error.strerror}.") from None
    return target


def _moved(entries: Sequence[Annotation], images: str) -> list[Annotation]:
    """The same samples with their pictures in another folder; "" leaves the names unchanged. Targets stay file names."""
    paths = list(dict.fromkeys(Path(path) for entry in entries for path in entry.image_ids))
    root = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    bare = len({path.name for path in paths}) == len(paths)
    before = f"{images.rstrip('/')}/" if images else ""
    names = {str(path): before + (path.name if bare else path.relative_to(root).as_posix()) for path in paths}
    return [replace(entry.renamed(names), target=entry.target) for entry in entries]


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()


def _quoted(text: str) -> str:
    """A YAML scalar; inside single quotes only the quote itself must be escaped."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"
