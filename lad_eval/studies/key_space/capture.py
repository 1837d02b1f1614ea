"""Keys of a task's prompts, stored shard by shard, so that a killed capture resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lad_eval.attention.hooks import attention_layers
from lad_eval.attention.keys import Stage, record_keys, stage_names
from lad_eval.attention.layout import PromptLayout
from lad_eval.errors import UserError
from lad_eval.evidence.table import Floats
from lad_eval.files.atomic import sweep, write_atomically
from lad_eval.files.documents import write_json
from lad_eval.files.tensors import read_tensors, tensors_as_bytes
from lad_eval.models.base import RunsPrompts
from lad_eval.run.progress import progress
from lad_eval.studies.key_space.tokens import VISUAL, Bools, Ints, sample_tokens, special_tokens, text_tokens, tokens_per_sample
from lad_eval.tasks.request import Request

SHARD = 16
"""Prompts per shard; a killed process loses at most one shard."""
LAYERS = 5
_VERSION = 2
_PER_PROMPT = ("request", "length", "links", "heads")
"""Tensors of a shard with a row per prompt; the others have one per token."""
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Captured:
    """Keys of one model on one task; one entry per token, sorted by sample.

    Attributes:
        layers: of the decoder, ascending.
        stages: by layer, the name of its keys before rotary positions; "none" where there are none.
        sample: Int[n], the number of each token's request.
        kind: Int[n], VISUAL, QUESTION or TEMPLATE; see `tokens`.
        ahead: Bool[n], whether a token stands before its prompt's last visual token.
        links: Float[samples, layers, 4, 2], see `KeyRecorder.links`; of visual tokens and of text.
        length: Int[samples], tokens of each prompt.
        heads: Int[layers], key-value heads of each layer.
    """

    layers: tuple[int, ...]
    stages: Mapping[int, str]
    sample: Ints
    kind: Ints
    ahead: Bools
    links: Floats
    length: Ints
    heads: Ints
    _tensors: Mapping[str, npt.NDArray[Any]]

    def has(self, layer: int, stage: Stage) -> bool:
        """Whether a layer has keys at a stage."""
        return _name(layer, stage) in self._tensors

    def keys(self, layer: int, stage: Stage) -> Floats:
        """Float[n, H_kv head_dim]."""
        return self._tensors[_name(layer, stage)].astype(np.float64)

    def scores(self, layer: int) -> Floats:
        """Float[n]: the pre-softmax score of the last query with each token's key."""
        return self._tensors[_name(layer, "scores")].astype(np.float64)

    @property
    def visual(self) -> Bools:
        """Bool[n]."""
        visual: Bools = self.kind == VISUAL
        return visual


def choose_layers(model: Any, text: str | None) -> tuple[int, ...]:
    """The layers to study: five that are evenly spaced, including the first and the last, or those that are named.

    Args:
        model: of transformers.
        text: "all", or numbers separated by commas; None: five. Only layers that attend can be chosen.

    Raises:
        UserError: there is no such layer, or it has no attention.
    """
    attending = sorted(attention_layers(model))
    if text is None:
        places = np.linspace(0, len(attending) - 1, min(LAYERS, len(attending))).round().astype(int)
        return tuple(attending[place] for place in places.tolist())
    if text.strip() == "all":
        return tuple(attending)
    parts = [part.strip() for part in text.split(",")]
    wrong = next((part for part in parts if not part.isdecimal() or int(part) not in attending), None)
    if wrong is not None:
        raise UserError(
            f"--layers takes all, or layers that attend, separated by commas; {wrong!r} is not one of {_listed(attending)}."
        )
    return tuple(sorted({int(part) for part in parts}))


def _listed(layers: Sequence[int]) -> str:
    whole = list(layers) == list(range(layers[0], layers[-1] + 1))
    return f"{layers[0]} to {layers[-1]}" if whole and len(layers) > 2 else ", ".join(map(str, layers))


def capture_facts(model: RunsPrompts, requests: Sequence[Request], layers: Sequence[int], seed: int) -> dict[str, Any]:
    """All that determines what is captured."""
    return {
        "version": _VERSION,
        "model": dict(model.fingerprint),
        "requests": hashlib.sha256("\n".join(request.key for request in requests).encode()).hexdigest()[:32],
        "layers": list(layers),
        "tokens": tokens_per_sample(len(requests)),
        "seed": seed,
    }


def digest_of(facts: Mapping[str, Any]) -> str:
    """The name of the folder for what some facts determine."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def capture(
    model: RunsPrompts, requests: Sequence[Request], layers: Sequence[int], folder: Path, *, seed: int, shown: bool
) -> Captured:
    """Keys of the requests' prompts; those already in the folder are not computed again.

    Args:
        model: without interventions.
        requests: one per sample, all with images.
        layers: of the decoder, such as `choose_layers` gives.
        folder: holds a folder for every model and choice of requests, layers, tokens and seed.
        seed: for the choice of tokens.
        shown: show progress on stderr.

    Raises:
        UserError: a stored shard is damaged, or keys are too large for float16, which they are stored as.
        UnsupportedModelError: see `lad_eval.attention.keys`.
    """
    most = tokens_per_sample(len(requests))
    facts = capture_facts(model, requests, layers, seed)
    place = folder / digest_of(facts)
    place.mkdir(parents=True, exist_ok=True)
    sweep(place)
    write_json(place / "facts.json", facts)
    stored = _stored(place)
    captured = {number for shard in stored for number in shard["request"].tolist()}
    number_of = {request.key: number for number, request in enumerate(requests)}
    missing = [request for request in requests if number_of[request.key] not in captured]
    special = special_tokens(model.processor.tokenizer)

    def read(layout: PromptLayout, run: Any) -> dict[str, npt.NDArray[Any]]:
        tokens = sample_tokens(layout, special, most, seed)
        columns = _torch(tokens.column)
        groups = (layout.visual, text_tokens(layout, special))
        with record_keys(model.model, layers, _torch(tokens.row), columns, groups) as recorder:
            run()
        recorder.check()
        of_row = np.asarray([number_of[key] for key in layout.keys])
        made: dict[str, npt.NDArray[Any]] = {
            "request": of_row,
            "length": layout.attended.sum(dim=1).numpy(),
            "heads": np.tile([recorder.heads[layer] for layer in layers], (len(of_row), 1)),
            "links": np.stack([recorder.links[layer].numpy() for layer in layers], axis=1),
            "sample": of_row[tokens.row],
            "kind": tokens.kind,
            "ahead": tokens.ahead.astype(np.uint8),
        }
        made |= {_name(layer, "scores"): recorder.scores[layer].numpy() for layer in layers}
        made |= {_name(*name): _half(keys.numpy(), name[0]) for name, keys in recorder.keys.items()}
        return made

    with progress(f"keys of {model.name}", len(requests), shown=shown) as advance:
        advance(len(captured))
        waiting: list[dict[str, npt.NDArray[Any]]] = []
        for made in model.read_prompts(missing, read):
            waiting.append(made)
            advance(len(made["request"]))
            if sum(len(one["request"]) for one in waiting) >= SHARD:
                stored.append(_store(place, waiting))
                waiting = []
        if waiting:
            stored.append(_store(place, waiting))
    return _joined(stored, tuple(layers), stage_names(model.model, layers))


def _name(layer: int, what: str) -> str:
    return f"{layer}/{what}"


def _torch(numbers: Ints) -> Any:
    import torch

    return torch.from_numpy(numbers)


def _half(keys: npt.NDArray[Any], layer: int) -> npt.NDArray[np.float16]:
    if keys.size and float(np.abs(keys).max()) > _LARGEST:
        raise UserError(f"Keys of decoder layer {layer} are larger than float16 can hold; choose other layers with --layers.")
    return keys.astype(np.float16)


def _store(place: Path, parts: Sequence[Mapping[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    shard = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    path = place / f"shard-{int(shard['request'].min()):06}.safetensors"
    content = tensors_as_bytes(shard, {})
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return shard


def _stored(place: Path) -> list[dict[str, npt.NDArray[Any]]]:
    """The stored shards; a prompt that two calls at once have both stored counts once."""
    shards: list[dict[str, npt.NDArray[Any]]] = []
    seen: set[int] = set()
    for path in sorted(place.glob("shard-*.safetensors")):
        shard = _read(path)
        new = [number for number in shard["request"].tolist() if number not in seen]
        seen.update(new)
        rows, tokens = np.isin(shard["request"], new), np.isin(shard["sample"], new)
        shards.append({name: values[rows if name in _PER_PROMPT else tokens] for name, values in shard.items()})
    return [shard for shard in shards if len(shard["request"])]


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        return read_tensors(path)[0]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it, and its prompts will be run again.") from error


def _joined(shards: Sequence[Mapping[str, npt.NDArray[Any]]], layers: tuple[int, ...], stages: Mapping[int, str]) -> Captured:
    tensors = {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
    rows = np.argsort(tensors["request"], kind="stable")
    order = np.argsort(tensors["sample"], kind="stable")
    per_token = {name: tensors[name][order] for name in tensors if name not in _PER_PROMPT}
    return Captured(
        layers,
        stages,
        per_token["sample"],
        per_token["kind"],
        per_token["ahead"].astype(bool),
        tensors["links"][rows].astype(np.float64),
        tensors["length"][rows],
        tensors["heads"][0],
        {name: tensor for name, tensor in per_token.items() if "/" in name},
    )
