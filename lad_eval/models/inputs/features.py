"""Caches of image features and pixels: a sample's permutations show the same images in other orders."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from lad_eval.models.inputs.cache import CACHE_BYTES, ByteLRU

_PIXELS, _GRID = "pixel_values", "image_grid_thw"
# Greatest distance of two computations in float32, relative to the norm; half-precision dtypes round more.
_ROUNDING, _COARSE_ROUNDING = 1e-4, 0.1

# Known fields of a vision tower's output, whether or not the model reads them.
_KNOWN = frozenset({"pooler_output", "deepstack_features", "last_hidden_state", "hidden_states", "attentions"})

Inputs = Mapping[str, Any]
Pieces = dict[str, tuple[torch.Tensor, list[int]]]
"""The vision tower's arguments: a tensor, and the number of its rows that belong to each image."""


class FeatureCache:
    """Replaces images' pixels by their features, so that each image is encoded once.

    This needs a forward pass that accepts features (`mm_encoder_outputs`), pixels that can be split by image, and a vision tower
    that encodes the images of a batch independently and whose output consists of `pooler_output` (and `deepstack_features`).
    Otherwise inputs are left unchanged. Independence is verified: two images of each kind (shape of pixels) are encoded together
    and separately, and compared.

    Args:
        model: an image-text-to-text model of transformers.
        capacity_bytes: of the cached features, on the model's device.
    """

    def __init__(self, model: Any, capacity_bytes: int = CACHE_BYTES) -> None:
        self._encode = getattr(model, "get_image_features", None)
        takes_features = "mm_encoder_outputs" in inspect.signature(type(model).forward).parameters
        self._names = frozenset(inspect.signature(self._encode).parameters) if self._encode and takes_features else frozenset()
        self._held: ByteLRU[str, list[torch.Tensor]] = ByteLRU(capacity_bytes, _bytes)
        self._independent: dict[tuple[int, ...], bool] = {}
        self._form: Callable[[list[list[torch.Tensor]]], Any] = list

    def clear(self) -> None:
        """Removes all images from the cache; what is known of their independence stays."""
        self._held.clear()

    def __call__(self, inputs: Inputs, images: Sequence[str], move: Callable[[Inputs], dict[str, Any]]) -> dict[str, Any]:
        """The inputs, with `mm_encoder_outputs` instead of `pixel_values` where that is possible.

        Args:
            inputs: of the model, on the CPU.
            images: a digest for each image of the batch, in order.
            move: moves inputs to the model's device and dtype.
        """
        arguments = dict(inputs)
        where = {digest: i for i, digest in reversed(list(enumerate(images)))}
        pieces = self._pieces(inputs, len(images))
        if pieces is None or not self._checked(pieces, sorted(where.values()), move):
            return arguments
        features = {digest: self._held.get(digest) for digest in where}
        fresh = sorted((digest for digest, parts in features.items() if parts is None), key=where.__getitem__)
        if fresh:
            made, self._form = self._features(pieces, [where[digest] for digest in fresh], move)
            # Clones, since views would keep the whole tensor in memory.
            features |= {digest: [part.clone() for part in parts] for digest, parts in zip(fresh, made, strict=True)}
            del made
        every = {digest: parts for digest, parts in features.items() if parts is not None}
        del arguments[_PIXELS]
        arguments["mm_encoder_outputs"] = {"image": self._form([every[digest] for digest in images])}
        for digest in fresh:
            self._held.put(digest, every[digest])
        return arguments

    def _pieces(self, inputs: Inputs, count: int) -> Pieces | None:
        """The vision tower's arguments; None where they cannot be split by image."""
        if _PIXELS not in self._names or _PIXELS not in inputs:
            return None
        pieces: Pieces = {}
        for name in self._names & inputs.keys():
            value = inputs[name]
            if not isinstance(value, torch.Tensor) or not value.dim():
                return None
            rows = [1] * count if name != _PIXELS or _GRID not in inputs else inputs[_GRID].prod(dim=-1).tolist()
            if len(rows) != count or sum(rows) != len(value):
                return None
            pieces[name] = value, rows
        return pieces

    def _checked(self, pieces: Pieces, images: Sequence[int], move: Callable[[Inputs], dict[str, Any]]) -> bool:
        """Whether images of this kind may be encoded separately."""
        kind = tuple(pieces[_PIXELS][0].shape[1:])
        if kind not in self._independent and len(images) > 1:
            self._independent[kind] = self._alike(pieces, images[:2], move)
        return self._independent.get(kind, False)

    def _alike(self, pieces: Pieces, pair: Sequence[int], move: Callable[[Inputs], dict[str, Any]]) -> bool:
        """Whether two images encoded together equal the same images encoded alone, and the tower's output can be reassembled."""
        output = self._output(pieces, pair, move)
        if output.pooler_output is None or any(name not in _KNOWN and output[name] is not None for name in output):
            return False  # the model reads other fields of the output: Llama 4 the last hidden state, Ovis2 its indicators
        joint, _ = self._features(pieces, pair, move, output)
        alone = [self._features(pieces, [i], move)[0] for i in pair]
        return len(joint) == 2 and all(len(one) == 1 and _close(one[0], both) for one, both in zip(alone, joint, strict=True))

    def _output(self, pieces: Pieces, images: Sequence[int], move: Callable[[Inputs], dict[str, Any]]) -> Any:
        assert self._encode is not None
        return self._encode(**move({name: _join(whole, rows, images) for name, (whole, rows) in pieces.items()}))

    def _features(
        self, pieces: Pieces, images: Sequence[int], move: Callable[[Inputs], dict[str, Any]], output: Any = None
    ) -> tuple[list[list[torch.Tensor]], Callable[[list[list[torch.Tensor]]], Any]]:
        """Features of some images, and a function that builds an output like the vision tower's from such features.

        An image's features are its tokens, and in some families further tokens for the decoder's lower layers.
        """
        output = self._output(pieces, images, move) if output is None else output
        tokens, layers = output.pooler_output, getattr(output, "deepstack_features", None) or []
        # Nothing else of the output may be referenced: its views would keep all of it in memory.
        kind, stacked, deep = type(output), isinstance(tokens, torch.Tensor), bool(layers)

        def answer(features: list[list[torch.Tensor]]) -> Any:
            columns = [list(column) for column in zip(*features, strict=True)]
            first = torch.stack(columns[0]) if stacked else columns[0]
            return kind(pooler_output=first, **({"deepstack_features": columns[1:]} if deep else {}))

        return [list(parts) for parts in zip(tokens, *layers, strict=False)], answer


def _join(whole: torch.Tensor, rows: Sequence[int], chosen: Sequence[int]) -> torch.Tensor:
    """The rows of the chosen images; pixels are large, so they are not copied if all are chosen."""
    if list(chosen) == list(range(len(rows))):
        return whole
    parts = torch.split(whole, list(rows))
    return torch.cat([parts[i] for i in chosen])


def _close(features: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    """Whether features differ by rounding only."""
    for one, other in zip(features, others, strict=True):
        if one.shape != other.shape:
            return False
        bound = _ROUNDING if one.dtype in (torch.float32, torch.float64) else _COARSE_ROUNDING
        if float((one.float() - other.float()).norm()) > bound * float(other.float().norm()):
            return False
    return True


def _bytes(features: Sequence[torch.Tensor]) -> int:
    return sum(part.nbytes for part in features)


class CachingImageProcessor:
    """Wraps an image processor of transformers with a cache.

    For most families the output for many images is the concatenation of the outputs for each, which can be cached. Where it is
    not (images counted by request, another layout), every call is passed on unchanged. This is verified: the first call of each
    kind (options, images per request, image size) is computed both ways and compared.

    Args:
        inner: the image processor.
        capacity_bytes: of the cached tensors. Images themselves are not cached, only identified by their digests, see `naming`.
    """

    def __init__(self, inner: Any, capacity_bytes: int = CACHE_BYTES) -> None:
        self._inner = inner
        self._held: ByteLRU[tuple[str, str], Inputs] = ByteLRU(capacity_bytes, _tensor_bytes)
        self._digests: dict[int, str] = {}
        self._separable: dict[tuple[str, int, tuple[int, int]], bool] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @contextmanager
    def naming(self, images: Iterable[Any], digests: Iterable[str]) -> Iterator[None]:
        """While open, these images are identified by their digests; outputs for other images are not cached."""
        self._digests = {id(image): digest for image, digest in zip(images, digests, strict=True)}
        try:
            yield
        finally:
            self._digests = {}

    def __call__(self, images: Any, *args: Any, **options: Any) -> Any:
        """The processor's output; cached where `images` are nested by request, of one size, and named."""
        rows = images if isinstance(images, list) and all(isinstance(row, list) for row in images) else []
        flat = [image for row in rows for image in row]
        if args or not flat or len({(len(row), image.size) for row in rows for image in row}) > 1 or not self._named(flat):
            return self._inner(images, *args, **options)
        settings = repr(sorted(options.items()))
        kind = (settings, len(rows[0]), flat[0].size)
        if not self._separable.get(kind, True):
            return self._inner(images, **options)
        joined = _joined([self._of_one(image, settings, options) for image in flat])
        if kind in self._separable and joined is not None:
            from transformers.feature_extraction_utils import BatchFeature

            return BatchFeature(joined)
        whole = self._inner(images, **options)
        if len(flat) > 1 and len(rows) > 1:
            self._separable[kind] = joined is not None and _equal(joined, dict(whole))
        return whole

    def _of_one(self, image: Any, settings: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        key = (self._digests[id(image)], settings)
        answer = self._held.get(key)
        if answer is None:
            answer = dict(self._inner([[image]], **options))
            self._held.put(key, answer)
        return answer

    def _named(self, images: Iterable[Any]) -> bool:
        return all(id(image) in self._digests for image in images)


def _joined(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The concatenated outputs; None where they do not have the same form."""
    joined: dict[str, Any] = {}
    for name in answers[0]:
        parts = [answer.get(name) for answer in answers]
        tensors = [part for part in parts if isinstance(part, torch.Tensor)]
        lists = [part for part in parts if isinstance(part, list)]
        if len(tensors) == len(parts) and tensors[0].dim() and len({part.shape[1:] for part in tensors}) == 1:
            joined[name] = torch.cat(tensors)
        elif len(lists) == len(parts):
            joined[name] = list(itertools.chain.from_iterable(lists))
        else:
            return None
    return joined


def _equal(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    if a.keys() != b.keys():
        return False
    for name, value in a.items():
        other = b[name]
        if isinstance(value, torch.Tensor) != isinstance(other, torch.Tensor):
            return False
        if not (torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other):
            return False
    return True


def _tensor_bytes(answer: Inputs) -> int:
    return sum(value.nbytes for value in answer.values() if isinstance(value, torch.Tensor))
