"""Remembers what the vision tower made of an image: a sample's permutations show the same images in another order."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from lad_eval.models.cache import CACHE_BYTES, ByteLRU

_PIXELS, _GRID = "pixel_values", "image_grid_thw"
# Greatest distance, by the features' length, of two computations in float32; a half as precise dtype rounds more.
_ROUNDING, _COARSE_ROUNDING = 1e-4, 0.1

# Fields of a vision tower's answer that a model reads, and those that it does not.
_KNOWN = frozenset({"pooler_output", "deepstack_features", "last_hidden_state", "hidden_states", "attentions"})

Inputs = Mapping[str, Any]
Pieces = dict[str, tuple[torch.Tensor, list[int]]]
"""The vision tower's arguments: a tensor, and how many of its rows belong to each image."""


class RememberedFeatures:
    """Puts images' features in the place of their pixels, so that each image is encoded once.

    It takes a forward pass that accepts features (`mm_encoder_outputs`), pixels that can be told apart by image, and a vision
    tower to which the images of a batch are independent of each other and whose answer is told whole by `pooler_output` (and
    `deepstack_features`). Where that is not so, inputs stay as they are.
    Independence is not guessed: two images of each kind (shape of pixels) are encoded together and alone, and compared.

    Args:
        model: an image-text-to-text model of transformers.
        capacity_bytes: of features held, on the model's device.
    """

    def __init__(self, model: Any, capacity_bytes: int = CACHE_BYTES) -> None:
        self._encode = getattr(model, "get_image_features", None)
        takes_features = "mm_encoder_outputs" in inspect.signature(type(model).forward).parameters
        self._names = frozenset(inspect.signature(self._encode).parameters) if self._encode and takes_features else frozenset()
        self._held: ByteLRU[str, list[torch.Tensor]] = ByteLRU(capacity_bytes, _bytes)
        self._independent: dict[tuple[int, ...], bool] = {}
        self._form: Callable[[list[list[torch.Tensor]]], Any] = list

    def __call__(self, inputs: Inputs, images: Sequence[str], move: Callable[[Inputs], dict[str, Any]]) -> dict[str, Any]:
        """The inputs, with `mm_encoder_outputs` for `pixel_values` where that can be.

        Args:
            inputs: of the model, on the CPU.
            images: a digest for each image of the batch, in order.
            move: brings inputs to the model's device and dtype.
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
            # Clones, as parts of one tensor would keep all of it in memory.
            features |= {digest: [part.clone() for part in parts] for digest, parts in zip(fresh, made, strict=True)}
            del made
        every = {digest: parts for digest, parts in features.items() if parts is not None}
        del arguments[_PIXELS]
        arguments["mm_encoder_outputs"] = {"image": self._form([every[digest] for digest in images])}
        for digest in fresh:
            self._held.put(digest, every[digest])
        return arguments

    def clear(self) -> None:
        """Forgets all images."""
        self._held.clear()

    def _pieces(self, inputs: Inputs, count: int) -> Pieces | None:
        """The vision tower's arguments; None where it cannot be told what belongs to which image."""
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
        """Whether images of this kind may be encoded apart."""
        kind = tuple(pieces[_PIXELS][0].shape[1:])
        if kind not in self._independent and len(images) > 1:
            self._independent[kind] = self._alike(pieces, images[:2], move)
        return self._independent.get(kind, False)

    def _alike(self, pieces: Pieces, pair: Sequence[int], move: Callable[[Inputs], dict[str, Any]]) -> bool:
        """Whether two images encoded together are what they are alone, and the tower's answer can be put together again."""
        output = self._output(pieces, pair, move)
        if output.pooler_output is None or any(name not in _KNOWN and output[name] is not None for name in output):
            return False  # the model reads something else of the answer: Llama 4 the last hidden state, Ovis2 its indicators
        joint, _ = self._features(pieces, pair, move, output)
        alone = [self._features(pieces, [i], move)[0] for i in pair]
        return len(joint) == 2 and all(len(one) == 1 and _close(one[0], both) for one, both in zip(alone, joint, strict=True))

    def _output(self, pieces: Pieces, images: Sequence[int], move: Callable[[Inputs], dict[str, Any]]) -> Any:
        assert self._encode is not None
        return self._encode(**move({name: _join(whole, rows, images) for name, (whole, rows) in pieces.items()}))

    def _features(
        self, pieces: Pieces, images: Sequence[int], move: Callable[[Inputs], dict[str, Any]], output: Any = None
    ) -> tuple[list[list[torch.Tensor]], Callable[[list[list[torch.Tensor]]], Any]]:
        """Features of some images, one after the other, and what makes an answer like the vision tower's of them.

        An image's features are its tokens, and in some families tokens for the decoder's lower layers.
        """
        output = self._output(pieces, images, move) if output is None else output
        tokens, layers = output.pooler_output, getattr(output, "deepstack_features", None) or []
        # Nothing else of the answer may be kept: its parts hold all of it in memory.
        kind, stacked, deep = type(output), isinstance(tokens, torch.Tensor), bool(layers)

        def answer(features: list[list[torch.Tensor]]) -> Any:
            columns = [list(column) for column in zip(*features, strict=True)]
            first = torch.stack(columns[0]) if stacked else columns[0]
            return kind(pooler_output=first, **({"deepstack_features": columns[1:]} if deep else {}))

        return [list(parts) for parts in zip(tokens, *layers, strict=False)], answer


def _join(whole: torch.Tensor, rows: Sequence[int], chosen: Sequence[int]) -> torch.Tensor:
    """The rows of the chosen images; pixels are large, so that all of them are not copied."""
    if list(chosen) == list(range(len(rows))):
        return whole
    parts = torch.split(whole, list(rows))
    return torch.cat([parts[i] for i in chosen])


def _close(features: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    """Whether they differ by no more than rounding."""
    for one, other in zip(features, others, strict=True):
        if one.shape != other.shape:
            return False
        bound = _ROUNDING if one.dtype in (torch.float32, torch.float64) else _COARSE_ROUNDING
        if float((one.float() - other.float()).norm()) > bound * float(other.float().norm()):
            return False
    return True


def _bytes(features: Sequence[torch.Tensor]) -> int:
    return sum(part.nbytes for part in features)


class RememberingImageProcessor:
    """Stands in for an image processor of transformers.

    For most families the answer for many images is that for each, one after the other, and the answers for single images can be
    kept. Where it is not (images counted by request, another layout), every call is passed on as it came. Which of the two holds
    is not guessed: the first call of each kind (options, images a request, image size) is computed both ways and compared.

    Args:
        inner: the image processor.
        capacity_bytes: of tensors held. Images are not: they are known by their digests, see `naming`.
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
        """While open, these images, which live as long, are known by their digests; of no other image an answer is remembered."""
        self._digests = {id(image): digest for image, digest in zip(images, digests, strict=True)}
        try:
            yield
        finally:
            self._digests = {}

    def __call__(self, images: Any, *args: Any, **options: Any) -> Any:
        """The processor's answer; remembered where `images` are nested by request, of one size, and named."""
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
    """The answers one after the other; None where they have no common form."""
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
