"""From requests to a model's inputs: image preparation, the chat message, left padding."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, get_args

import torch

from lad_eval.attention.layout import PromptLayout, no_padding
from lad_eval.attention.spans import NOT_FOR_THE_MODEL, Spans, image_spans, span_options
from lad_eval.data.decoding import as_rgb
from lad_eval.errors import PictureError, UserError
from lad_eval.models.base import ImagePreparation
from lad_eval.models.inference.batching import is_out_of_memory
from lad_eval.models.inference.candidates import CandidateTrie
from lad_eval.models.inference.continuation import align_prompt_end
from lad_eval.models.inputs.cache import CACHE_BYTES, ByteLRU
from lad_eval.models.inputs.features import CachingImageProcessor
from lad_eval.models.inputs.padding import CLIP_MEAN, Colour, mean_colour, pad_to_square, padding_share, unchanged
from lad_eval.models.prompts.conversation import Conversation
from lad_eval.tasks.files import shown
from lad_eval.tasks.request import showing

if TYPE_CHECKING:
    from PIL.Image import Image

    from lad_eval.tasks.request import ImageSource, Request


Size = tuple[int, int]


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


PROTOCOL_SIZE = (336, 336)
"""Width and height, in pixels, to which the protocol of arXiv 2605.11591 resizes every image (bicubic)."""

# Options of a family's image processor that depend on the number of images, by `model_type` of the configuration.
IMAGE_OPTIONS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    # Tiles of an image: the released code of LAD shares 28 among all images, at most 12 for one.
    "internvl": lambda n_images: {"max_patches": max(1, min(12, 28 // n_images))},
}


def check_image_preparation(name: str) -> ImagePreparation:
    """The name, after checking it.

    Raises:
        UserError: there is no such image preparation.
    """
    known: tuple[ImagePreparation, ...] = get_args(ImagePreparation)
    for choice in known:
        if name == choice:
            return choice
    raise UserError(f"Unknown image preparation {name!r}: use {' or '.join(map(repr, known))}.")


@dataclass(frozen=True)
class PreparedImage:
    """An image in RGB as passed to the model's processor, and its original width and height."""

    image: Image
    original: Size


class ImageCache:
    """A cache of prepared images: a sample's permutations show the same images again and again.

    Args:
        preparation: "protocol" resizes to PROTOCOL_SIZE; "native" leaves the size to the processor; "pad" pads to a square.
        colour: of the padding.
        capacity_bytes: of the cached pixels.
    """

    def __init__(self, preparation: ImagePreparation, colour: Colour = CLIP_MEAN, capacity_bytes: int = CACHE_BYTES) -> None:
        self.preparation = preparation
        self._colour = colour
        self._held: ByteLRU[str, PreparedImage] = ByteLRU(capacity_bytes, _bytes)

    def get(self, source: ImageSource) -> PreparedImage:
        """The image, prepared.

        Raises:
            DataError: it cannot be read.
        """
        held = self._held.get(source.digest)
        if held is None:
            image = as_rgb(source.load())
            held = PreparedImage(self.prepare(image), image.size)
            self._held.put(source.digest, held)
        return held

    def prepare(self, image: Image) -> Image:
        """An image in RGB, resized (without keeping its aspect ratio) or padded if the preparation says so."""
        from PIL.Image import Resampling

        if self.preparation == "protocol" and image.size != PROTOCOL_SIZE:
            return image.resize(PROTOCOL_SIZE, Resampling.BICUBIC)
        return pad_to_square(image, self._colour) if self.preparation == "pad" else image


@dataclass(frozen=True)
class Batch:
    """A model's inputs for n requests, on the CPU.

    Attributes:
        inputs: input_ids Int[n, T] padded on the left, attention_mask, pixels, ...
        layout: the parts of the prompts, token by token.
        trie: the candidates, as they continue the prompt.
        images: digests of all images, row by row.
    """

    inputs: dict[str, Any]
    layout: PromptLayout
    trie: CandidateTrie
    images: tuple[str, ...]

    @property
    def spans(self) -> Spans:
        """Positions of the images' tokens."""
        return self.layout.spans


class Preparation:
    """Prepares a batch's tensors.

    Args:
        model: or its configuration alone, which has what the processor does not say.
        processor: the model's multi-modal processor.
        conversation: renders the questions.
        preparation: of the images.

    Attributes:
        lock: held while the processor runs; other threads must hold it to use the tokenizer.
    """

    def __init__(self, model: Any, processor: Any, conversation: Conversation, preparation: ImagePreparation) -> None:
        self._model = model
        self._processor: Any = copy.copy(processor)
        self._image_processor = processor.image_processor
        self._pixels = self._processor.image_processor = CachingImageProcessor(processor.image_processor)
        self._accepted_sizes: set[tuple[int, int]] = set()
        self._conversation = conversation
        self._image_options = IMAGE_OPTIONS.get(str(getattr(model, "config", model).model_type), _no_options)
        self.images = ImageCache(preparation, mean_colour(processor.image_processor))
        self.lock = Lock()

    def check_sizes(self, requests: Sequence[Request]) -> None:
        """Checks the sizes of all images before any work is done on the requests.

        Raises:
            PictureError: the image processor refuses an image because of its size, or an image cannot be read.
        """
        if faults := self.size_faults(requests):
            raise faults[0]

    def size_faults(self, requests: Sequence[Request]) -> list[PictureError]:
        """Images whose size the image processor refuses, each with a sample that shows it; none with the protocol's fixed size.

        Raises:
            PictureError: a picture cannot be read.
        """
        if self.images.preparation == "protocol" or not requests:
            return []
        options = {"return_tensors": "pt", **self._image_options(len(requests[0].images))}
        with self.lock:
            return size_faults(self._image_processor, requests, options, self._accepted_sizes, self.images.prepare)

    def _images_of(self, request: Request) -> list[PreparedImage]:
        with showing(request.sample_id):
            return [self.images.get(source) for source in request.images]

    def __call__(self, requests: Sequence[Request], *, for_candidates: bool = True) -> Batch:
        """Inputs for requests with the same number of images and the same identifiers.

        Questions are not checked here; `PromptChecker` does that. A prompt ends where the candidates' tokens begin, or, if not
        `for_candidates`, where the chat template ends it.

        Images are nested by request, as every processor of transformers accepts (and LLaVA-OneVision requires: of several images
        of one request it uses the base tile only).

        Raises:
            DataError: an image cannot be read or is refused by the image processor.
            UnsupportedModelError: the images' token spans cannot be found.
            UserError: two identifiers have the same tokens.
        """
        first = requests[0]
        n_images = len(first.images)
        with self.lock:
            prompts = [self._conversation.prompt(request.question, n_images) for request in requests]
            prepared = [self._images_of(request) for request in requests]
            images = [[one.image for one in row] for row in prepared]
            digests = tuple(source.digest for request in requests for source in request.images)
            candidates = self._conversation.candidate_tokens(first.identifiers, n_images, first.question)
            try:
                with self._pixels.naming(chain.from_iterable(images), digests):
                    inputs = self._processor(
                        text=prompts,
                        images=images,
                        padding=True,
                        padding_side="left",
                        add_special_tokens=self._conversation.adds_special_tokens(prompts[0]),
                        return_tensors="pt",
                        **self._image_options(n_images),
                        **span_options(self._processor),
                    )
            except Exception as error:  # third-party code, which may raise any exception
                if not is_out_of_memory(error):
                    options = {"return_tensors": "pt", **self._image_options(n_images)}
                    if (fault := refused(self._image_processor, requests, images, options)) is not None:
                        raise fault from error
                raise
            aligned = align_prompt_end(inputs, candidates) if for_candidates else dict(inputs)
            sizes = [[(image.height, image.width) for image in row] for row in images]
            spans = image_spans(self._model, self._processor, aligned, n_images, image_sizes=sizes)
        arguments = {name: value for name, value in aligned.items() if name not in NOT_FOR_THE_MODEL}
        originals = [[(one.original[1], one.original[0]) for one in row] for row in prepared]
        mask = arguments.get("attention_mask")
        layout = PromptLayout(
            arguments["input_ids"],
            spans,
            torch.ones_like(arguments["input_ids"], dtype=torch.bool) if mask is None else mask.bool(),
            tuple(request.question for request in requests),
            self._decode,
            no_padding if self.images.preparation == "protocol" else partial(self._padding_share, originals),
            digests,
            tuple(request.sample_id for request in requests),
            tuple(request.key for request in requests),
        )
        return Batch(arguments, layout, candidates.trie, digests)

    def _padding_share(self, sizes: Sequence[Sequence[Size]], spans: Spans) -> torch.Tensor:
        options = {"return_tensors": "pt", **self._image_options(len(sizes[0]))}
        with self.lock:
            return padding_share(self._image_processor, options, sizes, spans, self.images.prepare)

    def _decode(self, ids: list[int]) -> str:
        with self.lock:
            return str(self._processor.tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _no_options(n_images: int) -> dict[str, Any]:
    return {}


def _bytes(held: PreparedImage) -> int:
    return held.image.width * held.image.height * 4  # Pillow keeps a pixel of RGB in four bytes
