"""What an image processor makes of each picture by itself, remembered: a sample's permutations show the same pictures again."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch

from lad_eval.models.inputs.cache import CACHE_BYTES, ByteLRU
from lad_eval.models.inputs.images import ImageCache, PreparedImage, Size
from lad_eval.tasks.request import showing

if TYPE_CHECKING:
    from lad_eval.tasks.request import ImageSource, Request

# Tensors with more values are pixels, which decide no token: only their shape is shown to the processor.
_SMALL = 4096
_MOST_THREADS = 4

Parts = Mapping[str, Any]
"""An image processor's output for one picture, alone in its request."""


@dataclass(frozen=True)
class PictureParts:
    """One picture as an image processor turns it into a model's inputs.

    Attributes:
        outputs: of the image processor.
        size: width and height of the picture as passed to the image processor.
        original: width and height before its preparation.
    """

    outputs: Parts
    size: Size
    original: Size

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in self.outputs.values() if isinstance(value, torch.Tensor))


class StandInProcessor:
    """Wraps an image processor of transformers: notes the options of a call, and can answer with remembered outputs instead.

    Args:
        inner: the image processor.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.options: dict[str, Any] | None = None
        self._answer: Mapping[str, Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @contextmanager
    def answering(self, outputs: Mapping[str, Any]) -> Iterator[None]:
        """While open, every call returns these outputs."""
        self._answer = outputs
        try:
            yield
        finally:
            self._answer = None

    def __call__(self, images: Any, *args: Any, **options: Any) -> Any:
        """The output of the image processor, or the answer that is set."""
        if self._answer is not None:
            from transformers.feature_extraction_utils import BatchFeature

            return BatchFeature(dict(self._answer))
        self.options = None if args else options
        return self.inner(images, *args, **options)


class PartsCache:
    """Makes and remembers the parts of pictures; those that are new are decoded and processed in several threads.

    Args:
        processor: the image processor.
        images: reads and prepares pictures.
        capacity_bytes: of the cached tensors. Pictures themselves are not cached here.
    """

    def __init__(self, processor: Any, images: Callable[[], ImageCache], capacity_bytes: int = CACHE_BYTES) -> None:
        self._processor = processor
        self._images = images
        self._held: ByteLRU[tuple[str, str], PictureParts] = ByteLRU(capacity_bytes, lambda parts: parts.nbytes)
        self._pool: ThreadPoolExecutor | None = None
        # Those of transformers keep nothing from one call to the next; of others that is unknown.
        stateless = type(processor).__module__.startswith("transformers.")
        self._alone: AbstractContextManager[Any] = nullcontext() if stateless else Lock()

    def __len__(self) -> int:
        return len(self._held)

    def of(self, requests: Sequence[Request], options: Mapping[str, Any]) -> dict[str, PictureParts]:
        """The parts of the pictures that requests show, by digest.

        Args:
            requests: in any number.
            options: of the image processor.

        Raises:
            DataError: a picture cannot be read.
        """
        settings = repr(sorted(options.items()))
        shown = _shown(requests)
        known = {digest: self._held.get((digest, settings)) for digest in shown}
        parts = {digest: one for digest, one in known.items() if one is not None}
        missing = [digest for digest in shown if digest not in parts]

        def make(digest: str) -> PictureParts:
            prepared = self._read(shown[digest])
            with self._alone:
                outputs = dict(self._processor([[prepared.image]], **options))
            return PictureParts(outputs, prepared.image.size, prepared.original)

        def made(digest: str) -> PictureParts:
            return self._held.get_or_make((digest, settings), lambda: make(digest))

        parts.update(zip(missing, self._mapped(made, missing), strict=True))
        return parts

    def read(self, requests: Sequence[Request]) -> dict[str, PreparedImage]:
        """The pictures that requests show, prepared, by digest.

        Raises:
            DataError: a picture cannot be read.
        """
        shown = _shown(requests)
        return dict(zip(shown, self._mapped(self._read, list(shown.values())), strict=True))

    def _read(self, item: tuple[ImageSource, str]) -> PreparedImage:
        source, sample = item
        with showing(sample):
            return self._images().get(source)

    def _mapped(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        if len(items) < 2 or _cores() == 1:
            return map(function, items)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(min(_MOST_THREADS, _cores()), "lad-eval-pictures")
        return self._pool.map(function, items)


def _shown(requests: Sequence[Request]) -> dict[str, tuple[ImageSource, str]]:
    """Every picture once, with a sample that shows it, by digest."""
    shown: dict[str, tuple[ImageSource, str]] = {}
    for request in requests:
        with showing(request.sample_id):
            for source in request.images:
                shown.setdefault(source.digest, (source, request.sample_id))
    return shown


def concatenable(parts: Sequence[Parts]) -> bool:
    """Whether the outputs for several pictures have one form: tensors of one shape but for their length, or lists."""
    for name in parts[0]:
        values = [one.get(name) for one in parts]
        if all(isinstance(value, list) for value in values):
            continue
        forms = {(value.shape[1:], value.dtype) if isinstance(value, torch.Tensor) and value.dim() else None for value in values}
        if None in forms or len(forms) > 1:
            return False
    return all(one.keys() == parts[0].keys() for one in parts)


def joined(parts: Sequence[Parts], name: str) -> Any:
    """One of the outputs of several pictures whose parts are concatenable."""
    values = [one[name] for one in parts]
    return torch.cat(values) if isinstance(values[0], torch.Tensor) else list(itertools.chain.from_iterable(values))


def stand_in(parts: Sequence[Parts]) -> dict[str, Any]:
    """The outputs of pictures whose parts are concatenable; pixels have their shape and no values.

    Token counts follow from sizes, grids and shapes, so that this is enough for a processor to write the text.
    """

    def answer(name: str) -> Any:
        values = [one[name] for one in parts]
        if not isinstance(values[0], torch.Tensor) or sum(value.numel() for value in values) <= _SMALL:
            return joined(parts, name)
        shape = (sum(len(value) for value in values), *values[0].shape[1:])
        return torch.zeros((), dtype=values[0].dtype).expand(shape)

    return {name: answer(name) for name in parts[0]}


class ModelInputs(Mapping[str, Any]):
    """A model's inputs, whose pictures are concatenated when they are first read: remembered features need no pixels.

    Args:
        text: inputs that do not come from pictures.
        pictures: the parts of every picture, row by row, concatenable; empty where they are not known apart.
        names: of the parts that are inputs.
    """

    def __init__(self, text: Mapping[str, Any], pictures: Sequence[Parts] = (), names: Sequence[str] = ()) -> None:
        self.text = text
        self.pictures = pictures
        self._names = tuple(names)
        self._joined: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            return self.text[name]
        if name not in self._joined:
            self._joined[name] = joined(self.pictures, name)
        return self._joined[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names or name in self.text

    def __iter__(self) -> Iterator[str]:
        return itertools.chain(self.text, self._names)

    def __len__(self) -> int:
        return len(self.text) + len(self._names)

    def by_picture(self, name: str) -> list[torch.Tensor] | None:
        """A tensor's rows, picture by picture; None where they are not known apart."""
        if name not in self._names:
            return None
        values = [one[name] for one in self.pictures]
        return values if all(isinstance(value, torch.Tensor) and value.dim() for value in values) else None


def _cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
