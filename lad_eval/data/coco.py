"""MS-COCO val2014 (Lin et al. 2014, arXiv 1405.0312): pictures, captions and categories as its authors publish them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lad_eval.data.archives import unpack
from lad_eval.data.dataset import DataFile, PrepareOptions, Progress
from lad_eval.data.download import fetch, missing
from lad_eval.data.retrieval.annotations import CaptionIndex, pictures_in
from lad_eval.data.retrieval.dataset import CaptionedSet
from lad_eval.errors import DataError
from lad_eval.files.documents import read_json

PICTURES = "val2014"
CAPTIONS = "annotations/captions_val2014.json"
INSTANCES = "annotations/instances_val2014.json"


def read_coco(root: Path) -> CaptionIndex:
    """Captions and categories of the val2014 pictures below a folder.

    A picture's caption is that of the lowest id, its categories are those of its instances. Pictures without an instance have no
    categories.

    Raises:
        DataError: a file is missing or damaged.
    """
    there = pictures_in(root / PICTURES)
    captions_file, instances_file = root / CAPTIONS, root / INSTANCES
    document = _parts(captions_file, "the captions", ("images", "annotations"))
    names = _names(captions_file, document["images"])
    lowest: dict[int, tuple[int, str]] = {}
    for image, number, caption in _fields(captions_file, document["annotations"], ("image_id", "id", "caption"), (int, int, str)):
        if image not in lowest or number < lowest[image][0]:
            lowest[image] = (number, caption)
    instances = _parts(instances_file, "the categories", ("annotations",))
    categories: dict[int, set[int]] = {}
    for image, category in _fields(instances_file, instances["annotations"], ("image_id", "category_id"), (int, int)):
        categories.setdefault(image, set()).add(category)
    captions = {}
    for image, (number, caption) in lowest.items():
        if image not in names:
            raise DataError(f"{captions_file} is damaged: caption {number} belongs to image {image}, which it does not list.")
        captions[names[image]] = caption
    present = {name: captions[name] for name in sorted(captions) if name in there}
    if not present:
        raise DataError(f"{root / PICTURES}: none of its pictures has a caption in {captions_file}.")
    categories_of = {names[image]: frozenset(ids) for image, ids in categories.items() if names.get(image) in present}
    return CaptionIndex(PICTURES, present, dict(sorted(categories_of.items())), absent=len(captions) - len(present))


def _parts(path: Path, purpose: str, keys: Iterable[str]) -> dict[str, Any]:
    document = read_json(path, what=purpose, cure="Get it again.", error=DataError)
    if not all(isinstance(document.get(key), list) for key in keys):
        raise DataError(f"{path} is damaged: it must have the lists {', '.join(keys)}; get it again.")
    return document


def _names(path: Path, images: list[Any]) -> dict[int, str]:
    return dict(_fields(path, images, ("id", "file_name"), (int, str)))


def _fields(path: Path, entries: list[Any], keys: tuple[str, ...], kinds: tuple[type, ...]) -> Iterable[Any]:
    for number, entry in enumerate(entries):
        try:
            values = tuple(entry[key] for key in keys)
        except (KeyError, TypeError):
            raise DataError(f"{path} is damaged: entry {number} lacks {' or '.join(keys)}; get it again.") from None
        if not all(map(isinstance, values, kinds)):
            raise DataError(f"{path} is damaged: entry {number} has a wrong {' or '.join(keys)}; get it again.")
        yield values


SIZES = (2, 4, 6, 8, 10, 12)


@dataclass(frozen=True)
class _Coco(CaptionedSet):
    def download(self, root: Path, options: PrepareOptions, progress: Progress) -> None:
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
    licence="annotations CC BY 4.0; pictures under the licence that their Flickr users chose, given for each in the annotations",
    files=(
        DataFile(
            "val2014.zip",
            "http://images.cocodataset.org/zips/val2014.zip",
            "the pictures",
            "Flickr users' own, given for each in the annotations",
            md5="a3d79f5ed8d289b7a7554ce06a5782b3",
            manual=f"Or unpack it yourself: the pictures belong in {PICTURES}/.",
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
