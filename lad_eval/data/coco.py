"""MS-COCO val2014 (Lin et al. 2014, arXiv 1405.0312): pictures, captions and categories as its authors publish them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lad_eval.data.annotations_dataset import CaptionedSet
from lad_eval.data.annotations_index import CaptionIndex
from lad_eval.data.archives import unpack
from lad_eval.data.coco_index import CAPTIONS, INSTANCES, PICTURES, read_coco
from lad_eval.data.dataset import DataFile, PrepareOptions, Progress
from lad_eval.data.download import fetch, missing

SIZES = (2, 4, 6, 8, 10, 12)


@dataclass(frozen=True)
class _Coco(CaptionedSet):
    def bring(self, root: Path, options: PrepareOptions, progress: Progress) -> None:
        pictures, annotations = self.files
        if (root / pictures.path).is_file() or not _any(root / PICTURES):
            unpack(fetch(pictures, root, progress, download=options.download), root, progress)
        lacking = [name for name in (CAPTIONS, INSTANCES) if not (root / name).is_file()]
        if lacking:
            if not options.download and not (root / annotations.path).is_file():
                raise missing(annotations, root, f", and so {' and '.join(lacking)} of it")
            unpack(fetch(annotations, root, progress, download=options.download), root, progress)

    def read(self, root: Path) -> CaptionIndex:
        return read_coco(root)

    def sources(self, root: Path) -> Sequence[Path]:
        return (root / PICTURES, root / CAPTIONS, root / INSTANCES)

    def picture_folder(self, root: Path) -> Path:
        return root / PICTURES


def _any(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


COCO = _Coco(
    name="coco",
    title="MS-COCO val2014",
    homepage="https://cocodataset.org",
    licence="annotations CC BY 4.0; pictures under the licence that their Flickr users chose, told for each in the annotations",
    files=(
        DataFile(
            "val2014.zip",
            "http://images.cocodataset.org/zips/val2014.zip",
            "the pictures",
            "Flickr users' own, told for each in the annotations",
            md5="a3d79f5ed8d289b7a7554ce06a5782b3",
            manual=f"Or unpack it yourself: the pictures belong into {PICTURES}/.",
        ),
        DataFile(
            "annotations_trainval2014.zip",
            "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
            "captions and categories",
            "CC BY 4.0",
            bytes=252_872_794,
            md5="0a379cfc70b0e71301e0f377548639bd",
            manual=f"Or unpack it yourself: {CAPTIONS} and {INSTANCES} are needed.",
        ),
    ),
    protocols=("official", "strict"),
    sizes=SIZES,
)
