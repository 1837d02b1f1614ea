"""Images that an image processor refuses because of their size, found with blank images before any work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_eval.errors import PictureError
from lad_eval.models.inference.batching import is_out_of_memory
from lad_eval.models.inputs.images import Size
from lad_eval.models.inputs.padding import unchanged
from lad_eval.tasks.files import shown

if TYPE_CHECKING:
    from PIL.Image import Image

    from lad_eval.tasks.request import ImageSource, Request


def size_faults(
    image_processor: Any,
    requests: Iterable[Request],
    options: Mapping[str, Any],
    known: set[Size] | None = None,
    prepare: Callable[[Image], Image] = unchanged,
) -> list[PictureError]:
    """Images that an image processor refuses because of their size, tested with blank images, each with a sample that shows it.

    Limits concern the narrowest and the smallest images, so only those are tried, and the next ones where one is refused.

    Args:
        image_processor: takes images nested by request, as those of transformers do.
        requests: with the images to check; rendered images, which have no fixed size, are skipped.
        options: of the image processor.
        known: accepted sizes, which are not tried again; newly accepted sizes are added.
        prepare: applied to an image before the image processor.

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
            reason = refusal(image_processor, prepare(Pil.new("RGB", size)), options)
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
    """The first image that the image processor refuses when it is given alone; None if it takes each of them.

    Args:
        image_processor: as of `size_faults`.
        requests: that show the images.
        images: as passed to the processor, row by row.
        options: of the image processor.
    """
    for request, row in zip(requests, images, strict=True):
        for source, image in zip(request.images, row, strict=True):
            reason = refusal(image_processor, image, options)
            if reason is not None:
                return fault(request, source, image.size, reason)
    return None


def refusal(image_processor: Any, image: Image, options: Mapping[str, Any]) -> str | None:
    """Why an image processor refuses an image, in one line; None if it takes it."""
    try:
        image_processor([[image]], **options)
    except Exception as error:  # third-party code, which may raise any exception
        if is_out_of_memory(error):
            raise
        return " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return None


def fault(request: Request, source: ImageSource, size: Size, reason: str) -> PictureError:
    """A refused image in one line: sample, image, size, the processor's reason, and what to do."""
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
