"""Pictures that a model's image processor refuses, such as those beyond a limit on the ratio of their sides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_eval.errors import PictureError
from lad_eval.models.batching import is_out_of_memory
from lad_eval.tasks.files import shown

if TYPE_CHECKING:
    from PIL.Image import Image

    from lad_eval.tasks.request import Request
    from lad_eval.tasks.sample import ImageSource

Size = tuple[int, int]


def size_faults(
    image_processor: Any, requests: Iterable[Request], options: Mapping[str, Any], known: set[Size] | None = None
) -> list[PictureError]:
    """Pictures whose size alone an image processor refuses, found on blank pictures, each with a sample that shows it.

    Limits concern the narrowest and the smallest pictures, so only those are tried; and where one is refused, the next.

    Args:
        image_processor: takes images nested by request, as those of transformers do.
        requests: whose images are looked at; drawn ones, which have no size of their own, are passed over.
        options: of the image processor.
        known: sizes that are accepted, not tried again; sizes that prove to be are added.

    Raises:
        PictureError: a picture cannot be read.
    """
    from PIL import Image as Pil

    accepted: set[Size] = set() if known is None else known
    shows: dict[Size, tuple[Request, ImageSource]] = {}
    for request in requests:
        for source in request.images:
            size: Size | None = getattr(source, "size", None)
            if size is not None:
                shows.setdefault(size, (request, source))
    left = set(shows)
    faults: list[PictureError] = []
    while untried := _extremes(left) - accepted:
        for size in sorted(untried):
            reason = refusal(image_processor, Pil.new("RGB", size), options)
            if reason is None:
                accepted.add(size)
                continue
            left.discard(size)
            request, source = shows[size]
            faults.append(fault(request, source, size, reason))
    return faults


def refused(
    image_processor: Any, requests: Sequence[Request], images: Sequence[Sequence[Image]], options: Mapping[str, Any]
) -> PictureError | None:
    """The first of the images that the image processor refuses by itself; None where it takes each of them.

    Args:
        image_processor: as of `size_faults`.
        requests: that show the images.
        images: as they go to the processor, row by row.
        options: of the image processor.
    """
    for request, row in zip(requests, images, strict=True):
        for source, image in zip(request.images, row, strict=True):
            reason = refusal(image_processor, image, options)
            if reason is not None:
                return fault(request, source, image.size, reason)
    return None


def refusal(image_processor: Any, image: Image, options: Mapping[str, Any]) -> str | None:
    """Why an image processor does not take an image, in one line; None where it does."""
    try:
        image_processor([[image]], **options)
    except Exception as error:  # somebody else's program, which promises no kind of error
        if is_out_of_memory(error):
            raise
        return " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return None


def fault(request: Request, source: ImageSource, size: Size, reason: str) -> PictureError:
    """A refused image in one line: sample, picture, size, the processor's reason, and what can be done."""
    path = getattr(source, "path", None)
    picture = shown(path) if isinstance(path, Path) else f"image {request.images.index(source)}"
    return PictureError(
        f"{picture} ({size[0]} x {size[1]} pixels) is refused by the model's image processor: {reason}; use another picture, "
        "or --image-preparation protocol, which makes all of one size.",
        request.sample_id,
    )


def _extremes(sizes: set[Size]) -> set[Size]:
    """The widest, the tallest, the narrowest and the lowest of some sizes."""
    if not sizes:
        return set()
    return {
        max(sizes, key=lambda size: (size[0] / size[1], size)),
        max(sizes, key=lambda size: (size[1] / size[0], size)),
        min(sizes),
        min(sizes, key=lambda size: (size[1], size[0])),
    }
