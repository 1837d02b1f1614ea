"""A folder of pictures with a file of captions: which file every name means, and what is left out."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lad_eval.data.names import PictureFolder, locate
from lad_eval.errors import DataError
from lad_eval.tasks.files import did_you_mean, shown
from lad_eval.tasks.sources.captions import read_captions

CaptionChoice = Literal["first", "random", "all"]
"""Which of several captions of a picture are asked about."""

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Album:
    """Pictures with captions.

    Attributes:
        paths: of the pictures, by the names that the captions file gives.
        captions: of every picture, at least one.
        absent: names of the captions file that lead to no file.
    """

    paths: Mapping[str, Path]
    captions: Mapping[str, tuple[str, ...]]
    absent: tuple[str, ...] = ()

    @property
    def first(self) -> dict[str, str]:
        """Every picture's first caption."""
        return {name: captions[0] for name, captions in self.captions.items()}

    def chosen(self, choice: CaptionChoice, seed: int) -> dict[str, tuple[str, ...]]:
        """The captions that are asked about: all, the first, or one drawn for every picture by a generator of its own."""
        if choice == "all":
            return dict(self.captions)
        if choice == "first":
            return {name: captions[:1] for name, captions in self.captions.items()}
        return {name: (random.Random(f"caption-1/{seed}/{name}").choice(captions),) for name, captions in self.captions.items()}


def read_album(images: Path, captions: Path, *, allow_outside: bool = False) -> Album:
    """Reads the captions and looks for every picture; no picture is opened.

    Captions of pictures that are not there are left out, and pictures without a caption; a warning counts both.

    Args:
        images: folder of the pictures.
        captions: captions file, see `read_captions`; its names are relative to the folder.
        allow_outside: whether names may lead out of the folder.

    Raises:
        DataError: the folder or the file is missing or of no known form, a name leads out of the folder, or none of the
            pictures is there.
    """
    if not images.is_dir():
        near = did_you_mean(images.name, (p.name for p in images.parent.glob("*") if p.is_dir()))
        raise DataError(f"{shown(images)}: no such folder of images.{near}")
    told = read_captions(captions)
    folder = PictureFolder(images)
    if not allow_outside and (outside := [name for name in told if folder.leads_outside(name)]):
        more = f" ({len(outside)} names do)" if len(outside) > 1 else ""
        raise DataError(
            f"{shown(captions)}: the name {outside[0]!r} leads out of the folder of images {shown(images)}{more}; "
            "name a folder that holds them all, or allow it with `allow_outside: true` under `data:`."
        )
    paths: dict[str, Path] = {}
    all_captions: dict[str, dict[str, None]] = {}
    name_of: dict[str, str] = {}
    absent = []
    for spelled, located in locate(folder, told).items():
        if located.path is None:
            absent.append(located.name)
            continue
        # Two spellings of one file, as `a.jpg` and `./a.jpg`, are one picture.
        name = name_of.setdefault(os.path.normpath(located.path), located.name)
        paths[name] = located.path
        all_captions.setdefault(name, {}).update(dict.fromkeys(told[spelled]))
    if not paths:
        raise DataError(_none_there(images, captions, absent))
    if absent:
        _LOG.warning("%s: %s", shown(images), absent_line(len(absent), len(paths), absent[0]))
    _warn_of_captionless(images, paths)
    return Album(paths, {name: tuple(texts) for name, texts in all_captions.items()}, tuple(absent))


def absent_line(absent: int, there: int, first: str) -> str:
    """What to know of a folder that lacks pictures of its captions file."""
    return f"{absent} of {absent + there} images with a caption are not there and left out, as {first}."


def _none_there(images: Path, captions: Path, absent: list[str]) -> str:
    pictures = sorted(path.name for path in images.rglob("*") if path.suffix.lower() in PICTURES)
    holds = f"{len(pictures)} picture{'s' if len(pictures) > 1 else ''}, as {pictures[0]}" if pictures else "no picture"
    number = f"none of the {len(absent)} images" if len(absent) > 1 else "the image"
    is_there = "is" if len(absent) > 1 else "is not"
    return f"{shown(captions)}: {number} that it names, as {absent[0]}, {is_there} in {shown(images)}, which holds {holds}."


def _warn_of_captionless(images: Path, paths: Mapping[str, Path]) -> None:
    known = {os.path.normpath(path) for path in paths.values()}
    without = [p.name for p in images.iterdir() if p.suffix.lower() in PICTURES and os.path.normpath(p) not in known]
    if without:
        _LOG.warning("%s: %d images without a caption are left out, as %s.", shown(images), len(without), min(without))
