"""Remembers what the image processor made of an image: a sample's permutations show the same images in another order."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

_CACHE_BYTES = 64 * 2**20


class RememberingImageProcessor:
    """Stands in for an image processor of transformers.

    For most families the answer for many images is that for each, one after the other, and the answers for single images can be
    kept. Where it is not (images counted by request, another layout), every call is passed on as it came. Which of the two holds
    is not guessed: the first call of each kind (options, images a request, image size) is computed both ways and compared.

    Args:
        inner: the image processor.
        capacity_bytes: of tensors held.
    """

    def __init__(self, inner: Any, capacity_bytes: int = _CACHE_BYTES) -> None:
        self._inner = inner
        self._capacity = capacity_bytes
        self._held: OrderedDict[tuple[int, str], tuple[Any, Mapping[str, Any]]] = OrderedDict()
        self._bytes = 0
        self._separable: dict[tuple[str, int, tuple[int, int]], bool] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, images: Any, *args: Any, **options: Any) -> Any:
        """The processor's answer; remembered where `images` are nested by request and of one size."""
        rows = images if isinstance(images, list) and all(isinstance(row, list) for row in images) else []
        flat = [image for row in rows for image in row]
        if args or not flat or len({(len(row), image.size) for row in rows for image in row}) > 1:
            return self._inner(images, *args, **options)
        asked = repr(sorted(options.items()))
        kind = (asked, len(rows[0]), flat[0].size)
        if not self._separable.get(kind, True):
            return self._inner(images, **options)
        joined = _join([self._of_one(image, asked, options) for image in flat])
        if kind in self._separable and joined is not None:
            from transformers.feature_extraction_utils import BatchFeature

            return BatchFeature(joined)
        whole = self._inner(images, **options)
        if len(flat) > 1 and len(rows) > 1:
            self._separable[kind] = joined is not None and _equal(joined, dict(whole))
        return whole

    def _of_one(self, image: Any, asked: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        key = (id(image), asked)
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key][1]
        answer = dict(self._inner([[image]], **options))
        self._held[key] = (image, answer)  # the image too, so that its id is not given to another
        self._bytes += _bytes(answer)
        while self._bytes > self._capacity and len(self._held) > 1:
            self._bytes -= _bytes(self._held.popitem(last=False)[1][1])
        return answer


def _join(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
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


def _bytes(answer: Mapping[str, Any]) -> int:
    return sum(value.nbytes for value in answer.values() if isinstance(value, torch.Tensor))
