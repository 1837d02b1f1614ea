"""Flickr8k (Hodosh et al. 2013): pictures with five captions each, and lists of the pictures for training and testing."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lad_eval.data.archives import unpack
from lad_eval.data.dataset import DataFile, PrepareOptions, Progress
from lad_eval.data.download import fetch
from lad_eval.data.retrieval.annotations import CaptionIndex, pictures_in
from lad_eval.data.retrieval.dataset import CaptionedSet
from lad_eval.data.retrieval.protocols import plain
from lad_eval.errors import DataError

FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images")
"""Spellings of the picture folder; the archive has the first."""
CAPTIONS = ("Flickr8k.token.txt", "captions.txt", "captions.csv")
TEST_LIST = "Flickr_8k.testImages.txt"


def picture_folder(root: Path) -> str:
    """Name of the folder that holds the pictures.

    Raises:
        DataError: there is none.
    """
    for name in FOLDERS:
        if (root / name).is_dir():
            return name
    raise DataError(f"{root / FOLDERS[0]} is missing (the pictures; {' or '.join(FOLDERS[1:])} works too).")


def caption_file(root: Path) -> Path:
    """The file that holds the captions.

    Raises:
        DataError: there is none.
    """
    for name in CAPTIONS:
        if (root / name).is_file():
            return root / name
    raise DataError(f"{root / CAPTIONS[0]} is missing (the captions; {' or '.join(CAPTIONS[1:])} with image,caption works too).")


def read_flickr8k(root: Path) -> CaptionIndex:
    """Captions of the pictures below a folder, and which of them are for testing, where a list says so.

    A picture's caption is its first (`#0`, or the first line of a table). If an earlier picture (test pictures first, then by
    name) has the same caption, the first caption that is still free is used; a picture without one is left out.

    Raises:
        DataError: a file is missing or damaged.
    """
    folder = picture_folder(root)
    there = pictures_in(root / folder)
    path = caption_file(root)
    captions_of: dict[str, list[tuple[int, str]]] = {}
    for name, number, caption in _token_lines(path) if path.name == CAPTIONS[0] else _table_lines(path):
        captions_of.setdefault(name, []).append((number, caption))
    if not captions_of:
        raise DataError(f"{path} is damaged: it holds no caption; get it again.")
    present = [name for name in sorted(captions_of) if name in there]
    if not present:
        raise DataError(f"{root / folder}: none of its pictures has a caption in {path}.")
    listed = _listed(root / TEST_LIST)
    if missing := [name for name in listed if name not in present]:
        raise DataError(f"{root / folder / missing[0]} is missing or has no caption, but {TEST_LIST} lists it.")
    captions = _distinct(
        {name: captions_of[name] for name in [*listed, *(name for name in present if name not in frozenset(listed))]}
    )
    test = tuple(name for name in listed if name in captions)
    return CaptionIndex(folder, dict(sorted(captions.items())), test=test, absent=len(captions_of) - len(present))


def _distinct(captions_of: dict[str, list[tuple[int, str]]]) -> dict[str, str]:
    taken: set[str] = set()
    captions = {}
    for name, numbered in captions_of.items():
        free = [caption for _, caption in sorted(numbered, key=lambda pair: pair[0]) if plain(caption) not in taken]
        if free:
            captions[name] = free[0]
            taken.add(plain(free[0]))
    return captions


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is damaged: not UTF-8 text (byte {error.start}); get it again.") from None


def _token_lines(path: Path) -> Iterator[tuple[str, int, str]]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        key, tab, caption = line.partition("\t")
        name, sign, index = key.rpartition("#")
        if not (tab and sign and name and index.isdigit() and caption.strip()):
            raise DataError(f"{path} is damaged: line {number} is not <image>#<number><tab><caption>; get it again.")
        yield name, int(index), caption.strip()


def _table_lines(path: Path) -> Iterator[tuple[str, int, str]]:
    lines = csv.reader(_lines(path))
    try:
        header = next(lines, [])
        if [cell.strip() for cell in header] != ["image", "caption"]:
            raise DataError(f"{path}: the first line must be image,caption.")
        for number, cells in enumerate(lines, start=2):
            if not cells:
                continue
            # A table in circulation has captions with commas and no quotes.
            caption = ",".join(cells[1:]).strip()
            if not cells[0].strip() or not caption:
                raise DataError(f"{path} is damaged: line {number} is not image,caption.")
            yield cells[0].strip(), number, caption
    except csv.Error as error:
        raise DataError(f"{path} is damaged: {error}.") from None


def _listed(path: Path) -> list[str]:
    return sorted({line.strip() for line in _lines(path) if line.strip()}) if path.is_file() else []


@dataclass(frozen=True)
class _Flickr8k(CaptionedSet):
    def download(self, root: Path, options: PrepareOptions, progress: Progress) -> None:
        pictures, texts = self.files
        if (root / pictures.path).is_file() or not any((root / name).is_dir() for name in FOLDERS):
            unpack(fetch(pictures, root, progress, download=options.download), root, progress)
        if not any((root / name).is_file() for name in CAPTIONS):
            unpack(fetch(texts, root, progress, download=options.download), root, progress)

    def read(self, root: Path) -> CaptionIndex:
        return read_flickr8k(root)

    def sources(self, root: Path) -> Sequence[Path]:
        try:
            captions = caption_file(root)
        except DataError:
            captions = root / CAPTIONS[0]
        lists = [root / TEST_LIST] if (root / TEST_LIST).is_file() else []
        return (self.picture_folder(root), captions, *lists)

    def picture_folder(self, root: Path) -> Path:
        try:
            return root / picture_folder(root)
        except DataError:
            return root / FOLDERS[0]


_LICENCE = "for non-commercial research and education; pictures: their Flickr users'"
FLICKR8K = _Flickr8k(
    name="flickr8k",
    title="Flickr8k",
    homepage="https://hockenmaier.cs.illinois.edu/8k-pictures.html",
    licence=_LICENCE,
    files=(
        DataFile(
            "Flickr8k_Dataset.zip",
            "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/Flickr8k_Dataset.zip",
            "the pictures",
            _LICENCE,
            md5="f18a1e2920de5bd84dae7cf08ec78978",
            manual=f"Or unpack it yourself: the pictures belong in {FOLDERS[0]}/.",
        ),
        DataFile(
            "Flickr8k_text.zip",
            "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/Flickr8k_text.zip",
            "captions and lists",
            _LICENCE,
            md5="bf6c1abcb8e4a833b7f922104de18627",
            manual=f"Or unpack it yourself: {CAPTIONS[0]} is needed and {TEST_LIST} useful; a table {CAPTIONS[2]} works too.",
        ),
    ),
    protocols=("strict",),
    sizes=(4, 8),
)
