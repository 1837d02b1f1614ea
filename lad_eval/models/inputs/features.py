"""A cache of image features: a sample's permutations show the same images in other orders."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lad_eval.models.device import concatenated
from lad_eval.models.inputs.cache import CACHE_BYTES, ByteLRU
from lad_eval.models.inputs.parts import ModelInputs

_PIXELS, _GRID = "pixel_values", "image_grid_thw"
# Greatest distance of two computations in float32, relative to the norm; half-precision dtypes round more.
_ROUNDING, _COARSE_ROUNDING = 1e-4, 0.1

# Known fields of a vision tower's output, whether or not the model reads them.
_KNOWN = frozenset({"pooler_output", "deepstack_features", "last_hidden_state", "hidden_states", "attentions"})

Inputs = Mapping[str, Any]
Key = tuple[str, tuple[int, ...], int]
"""A digest, the shape of the pixels, which may depend on the request's other images, and how many these are if that matters."""


@dataclass(frozen=True)
class Pieces:
    """The vision tower's arguments, image by image.

    Attributes:
        rows: by the name of the argument, for each image its rows of the tensor.
        shared: names of those with a row per request, which each of its images has (LLaVA-OneVision's number of images).
        n_images: of a request.
    """

    rows: Mapping[str, Sequence[torch.Tensor]]
    shared: frozenset[str]
    n_images: int

    def of(self, images: Sequence[int], device: torch.device) -> dict[str, torch.Tensor]:
        """The arguments for some images, each as if no other of its request were encoded, ready to be copied to a device."""
        return {name: concatenated([rows[i] for i in images], device) for name, rows in self.rows.items()}

    def of_request(self) -> dict[str, torch.Tensor]:
        """The arguments for the first request, as its processor made them."""
        ends = {name: 1 if name in self.shared else self.n_images for name in self.rows}
        return {name: torch.cat(list(rows[: ends[name]])) for name, rows in self.rows.items()}

    def key(self, digest: str, image: int) -> Key:
        return digest, tuple(self.rows[_PIXELS][image].shape), self.n_images if self.shared else 0

    @property
    def kind(self) -> tuple[tuple[int, ...], int]:
        """What may decide whether images can be encoded separately."""
        return tuple(self.rows[_PIXELS][0].shape[1:]), self.n_images if self.shared else 0


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
        self._model = model
        self._encode = getattr(model, "get_image_features", None)
        takes_features = "mm_encoder_outputs" in inspect.signature(type(model).forward).parameters
        self._names = frozenset(inspect.signature(self._encode).parameters) if self._encode and takes_features else frozenset()
        self._held: ByteLRU[Key, list[torch.Tensor]] = ByteLRU(capacity_bytes, _bytes)
        self._independent: dict[tuple[tuple[int, ...], int], bool] = {}
        self._form: Callable[[list[list[torch.Tensor]]], Any] = list

    def clear(self) -> None:
        """Removes all images from the cache; what is known of their independence stays."""
        self._held.clear()

    def __call__(self, inputs: ModelInputs, images: Sequence[str], move: Callable[[Inputs], dict[str, Any]]) -> dict[str, Any]:
        """The inputs, with `mm_encoder_outputs` instead of `pixel_values` where that is possible.

        Args:
            inputs: of the model, on the CPU.
            images: a digest for each image of the batch, in order.
            move: moves inputs to the model's device and dtype.
        """
        where = {digest: i for i, digest in reversed(list(enumerate(images)))}
        pieces = self._pieces(inputs, len(images))
        if pieces is None or not self._checked(pieces, sorted(where.values()), move):
            return dict(inputs)
        keys = {digest: pieces.key(digest, place) for digest, place in where.items()}
        features = {digest: self._held.get(key) for digest, key in keys.items()}
        fresh = sorted((digest for digest, parts in features.items() if parts is None), key=where.__getitem__)
        if fresh:
            made, self._form = self._features(pieces, [where[digest] for digest in fresh], move)
            # Clones, since views would keep the whole tensor in memory.
            features |= {digest: [part.clone() for part in parts] for digest, parts in zip(fresh, made, strict=True)}
            del made
        every = {digest: parts for digest, parts in features.items() if parts is not None}
        # The pixels are not read: those of remembered images need not be concatenated.
        arguments: dict[str, Any] = {name: inputs[name] for name in inputs if name != _PIXELS}
        arguments["mm_encoder_outputs"] = {"image": self._form([every[digest] for digest in images])}
        for digest in fresh:
            self._held.put(keys[digest], every[digest])
        return arguments

    def _pieces(self, inputs: ModelInputs, count: int) -> Pieces | None:
        """The vision tower's arguments; None where they cannot be split by image."""
        if _PIXELS not in self._names or _PIXELS not in inputs:
            return None
        requests = len(inputs["input_ids"]) if "input_ids" in inputs else count
        n_images = count // max(1, requests)
        pieces: dict[str, Sequence[torch.Tensor]] = {}
        shared = set()
        for name in self._names & inputs.keys():
            known = inputs.by_picture(name)
            if known is not None:
                pieces[name] = known
                continue
            value = inputs[name]
            if not isinstance(value, torch.Tensor) or not value.dim():
                return None
            rows = [1] * count if name != _PIXELS or _GRID not in inputs else inputs[_GRID].prod(dim=-1).tolist()
            if len(rows) == count and sum(rows) == len(value):
                pieces[name] = torch.split(value, rows)
            elif name != _PIXELS and len(value) == requests and count == requests * n_images:
                shared.add(name)
                pieces[name] = [value[i // n_images][None] for i in range(count)]
            else:
                return None
        return Pieces(pieces, frozenset(shared), n_images)

    def _checked(self, pieces: Pieces, images: Sequence[int], move: Callable[[Inputs], dict[str, Any]]) -> bool:
        """Whether images of this kind may be encoded separately."""
        kind = pieces.kind
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
        same = len(joint) == 2 and all(len(one) == 1 and _close(one[0], both) for one, both in zip(alone, joint, strict=True))
        if not same or not pieces.shared:
            return same
        # What a request's row means for one image alone is a guess; so a whole request is compared, too.
        every = range(pieces.n_images)
        whole, _ = self._features(pieces, every, move, self._encoded(pieces.of_request(), move))
        separate, _ = self._features(pieces, every, move)
        return len(whole) == len(separate) and all(_close(one, both) for one, both in zip(separate, whole, strict=True))

    def _output(self, pieces: Pieces, images: Sequence[int], move: Callable[[Inputs], dict[str, Any]]) -> Any:
        return self._encoded(pieces.of(images, self._model.device), move)

    def _encoded(self, arguments: Inputs, move: Callable[[Inputs], dict[str, Any]]) -> Any:
        assert self._encode is not None
        return self._encode(**move(arguments))

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
