"""How much the tokens of each image attend to each image, layer by layer, in the unchanged model and under fused attention.

The shares are written into the study's folder and read from there, so that pictures can be made again without a model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.evidence.table import Floats
from lad_eval.files.documents import write_json
from lad_eval.models.base import RunsPrompts
from lad_eval.run.folder import files
from lad_eval.studies.capl.conditions import Weights
from lad_eval.tasks.request import Request

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.hooks import AttentionCall
    from lad_eval.attention.layout import PromptLayout
    from lad_eval.attention.spans import Spans

REQUESTS = 50
"""Prompts whose attention is averaged."""
PLAIN, FUSED = "plain", "fused"

Shares = Mapping[str, Mapping[int, Floats]]
"""By PLAIN and FUSED, then by layer, Float[N, N]: row i holds the share of the attention of image i's tokens to each image."""


@contextmanager
def record_between(model: Any, spans: Spans, fused: Capl | None = None) -> Iterator[dict[int, torch.Tensor]]:
    """Records attention between images in the prefill that is made while the context is open.

    Attention is the mean over heads and over an image's visual tokens; what is left to 1 goes to text. Under `capl` the weights
    of a fused layer are (1 - weight) of the first pass and weight of the second one, as the layer's output is.

    Args:
        model: of transformers.
        spans: of the prompts.
        fused: the intervention that is open inside the context; None: the model is unchanged.

    Yields:
        By layer, Float32[batch, N, N], on the CPU; filled as the layers run.
    """
    import torch

    from lad_eval.attention.cross_image.masks import key_tokens, mask_rows, opened_rows
    from lad_eval.attention.hooks import attending_layers, observe_attention
    from lad_eval.attention.layer_hooks import observe_embeddings

    layers = frozenset() if fused is None else frozenset(attending_layers(model, fused.every))
    shares: dict[int, torch.Tensor] = {}
    key_owner: torch.Tensor | None = None

    def choose(embeddings: torch.Tensor) -> None:
        nonlocal key_owner
        if fused is not None and embeddings.shape[:2] == spans.owner.shape:
            key_owner = key_tokens(embeddings, spans.owner, fused.rho)

    def observe(call: AttentionCall) -> None:
        if not call.is_prefill(spans.length):
            return
        owner = spans.owner.to(call.query.device)
        with torch.no_grad():
            total = _summed(call, owner, owner)
            if fused is not None and call.layer in layers and key_owner is not None:
                rows = opened_rows(call, key_owner)
                if rows is not None:
                    index = rows.index[:, None, :, None].expand(-1, call.query.shape[1], -1, call.query.shape[3])
                    query, theirs = call.query.gather(2, index), torch.where(rows.gains, owner.gather(1, rows.index), -1)
                    first = replace(call, query=query, mask=mask_rows(call, rows.index))
                    second = replace(call, query=query, mask=rows.mask)
                    total += fused.weight * (_summed(second, theirs, owner) - _summed(first, theirs, owner))
            count = torch.nn.functional.one_hot(owner + 1, total.shape[1] + 1)[..., 1:].sum(dim=1)
            shares[call.layer] = (total / count[..., None]).cpu()

    with observe_embeddings(model, choose), observe_attention(model, observe):
        yield shares


def _summed(call: AttentionCall, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Float32[batch, N, N]: attention from queries of each image to keys of each image, summed over queries, mean over heads.

    Args:
        call: before it runs.
        queries: Int[batch, queries], the image of each query, -1 where it does not count.
        keys: Int[batch, T], the image of each key of the prompt, -1 elsewhere.
    """
    import torch

    from lad_eval.attention.rows import row_chunks

    n = int(keys.max()) + 1
    members = torch.nn.functional.one_hot(keys + 1, n + 1)[..., 1:].float()
    total = torch.zeros(len(keys), n, n, device=keys.device)
    for index, attention, counted in row_chunks(call, queries >= 0):
        of_query = torch.nn.functional.one_hot(queries.gather(1, index) + 1, n + 1)[..., 1:].float() * counted[..., None]
        total += of_query.transpose(1, 2) @ (attention.mean(dim=1)[..., : members.shape[1]] @ members)
    return total


def measure_between(
    model: RunsPrompts, weights: Weights, task: str, requests: Sequence[Request], fused: Capl, folder: Path
) -> None:
    """Measures attention between images, plain and fused, and writes it; does nothing where the folder has it already.

    Args:
        model: of transformers, as it is.
        weights: which of the study's models it is.
        task: name of the task that the requests are of.
        requests: all with the same number of images.
        fused: attention of FUSED.
        folder: of the study.
    """
    facts = between_facts(model.fingerprint, task, requests, fused)
    if read_between(facts, weights, task, folder) is not None:
        return
    shares = {name: _mean(model, requests, change) for name, change in ((PLAIN, None), (FUSED, fused))}
    as_lists = {name: {str(layer): matrix.tolist() for layer, matrix in by.items()} for name, by in shares.items()}
    write_json(_path(folder, weights, task), {"facts": facts, "shares": as_lists})


def _mean(model: RunsPrompts, requests: Sequence[Request], fused: Capl | None) -> dict[int, Floats]:
    """Float[N, N] by layer: the mean over the requests."""
    totals: dict[int, Floats] = {}
    for made in model.read_prompts(requests, _reader(model.model, fused)):
        for layer, matrix in made.items():
            totals[layer] = totals.get(layer, 0.0) + matrix
    return {layer: totals[layer] / len(requests) for layer in sorted(totals)}


def _reader(network: Any, fused: Capl | None) -> Callable[[PromptLayout, Callable[[], None]], dict[int, Floats]]:
    def read(layout: PromptLayout, run: Callable[[], None]) -> dict[int, Floats]:
        change = nullcontext() if fused is None else fused.applied(network, layout)
        with record_between(network, layout.spans, fused) as shares, change:
            run()
        return {layer: matrix.double().sum(dim=0).numpy() for layer, matrix in shares.items()}

    return read


def read_between(facts: Mapping[str, Any], weights: Weights, task: str, folder: Path) -> Shares | None:
    """What `measure_between` wrote of the same model, task, requests and attention; None where there is nothing of these.

    Raises:
        ResultsError: the file is damaged.
    """
    path = _path(folder, weights, task)
    stored = files.read_run_json(path) if path.is_file() else {}
    if stored.get("facts") != facts:
        return None
    return {
        name: {int(layer): np.asarray(matrix, dtype=np.float64) for layer, matrix in by_layer.items()}
        for name, by_layer in stored["shares"].items()
    }


def between_facts(fingerprint: Mapping[str, Any], task: str, requests: Sequence[Request], fused: Capl) -> dict[str, Any]:
    """What the shares are of."""
    keys = hashlib.sha256("\n".join(request.key for request in requests).encode()).hexdigest()[:32]
    made: dict[str, Any] = json.loads(
        json.dumps({"model": dict(fingerprint), "task": task, "requests": keys, "fused": fused.facts})
    )
    return made


def _path(folder: Path, weights: Weights, task: str) -> Path:
    return folder / f"attention-{weights}-{files.slug(task)}.json"
