"""Flickr8k (Hodosh et al. 2013): pictures with five captions each, and lists of those for training and testing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lad_eval.data.annotations_dataset import CaptionedSet
from lad_eval.data.annotations_index import CaptionIndex
from lad_eval.data.archives import unpack
from lad_eval.data.dataset import DataFile, PrepareOptions, Progress
from lad_eval.data.download import fetch
from lad_eval.data.flickr8k_index import CAPTIONS, FOLDERS, TEST_LIST, caption_file, picture_folder, read_flickr8k
from lad_eval.errors import DataError


@dataclass(frozen=True)
class _Flickr8k(CaptionedSet):
    def bring(self, root: Path, options: PrepareOptions, progress: Progress) -> None:
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


_LICENCE = "for research and education, not for commerce; pictures: their Flickr users'"
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
            manual=f"Or unpack it yourself: the pictures belong into {FOLDERS[0]}/.",
        ),
        DataFile(
            "Flickr8k_text.zip",
            "https://github.com/jbrownlee/Datasets/releases/download/Flickr8k/Flickr8k_text.zip",
            "captions and lists",
            _LICENCE,
            md5="bf6c1abcb8e4a833b7f922104de18627",
            manual=f"Or unpack it yourself: {CAPTIONS[0]} is needed, {TEST_LIST} wanted; a table {CAPTIONS[2]} would do.",
        ),
    ),
    protocols=("strict",),
    sizes=(4, 8),
)
