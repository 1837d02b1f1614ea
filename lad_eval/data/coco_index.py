"""COCO's own annotation files, read into an index."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lad_eval.data.annotations_index import CaptionIndex, pictures_in, read_json
from lad_eval.errors import DataError

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
    told = _parts(captions_file, "the captions", ("images", "annotations"))
    names = _names(captions_file, told["images"])
    lowest: dict[int, tuple[int, str]] = {}
    for image, number, caption in _fields(captions_file, told["annotations"], ("image_id", "id", "caption"), (int, int, str)):
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
    found = {names[image]: frozenset(ids) for image, ids in categories.items() if names.get(image) in present}
    return CaptionIndex(PICTURES, present, dict(sorted(found.items())), absent=len(captions) - len(present))


def _parts(path: Path, purpose: str, keys: Iterable[str]) -> dict[str, Any]:
    told = read_json(path, purpose)
    if not isinstance(told, dict) or not all(isinstance(told.get(key), list) for key in keys):
        raise DataError(f"{path} is damaged: it must be an object with the lists {', '.join(keys)}; get it again.")
    return told


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
