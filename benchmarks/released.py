"""The way the released code of LAD works (github.com/brightXian/LAD, c704b9d), in our own words, on our models and requests.

One run per method, one request at a time, eager attention. Methods that read attention request the full attention of every layer;
every prefix of a longer candidate name is a pass over the whole prompt again, pictures included; each method that calibrates does
so for itself; no feature of a picture is kept from one question to the next.

Where that code spends more for no reason of design, this does not: it calls the model once where the code calls `generate`,
vanilla stops after the first token, only the last position's logits are computed, pixels are prepared by lad_eval, which
remembers them, and permutation averaging runs N cyclic shifts instead of 16 random orders. The decisions are made by lad_eval's
methods, so that both ways can be seen to give the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lad_eval.attention.spans import Spans
from lad_eval.evidence.table import Evidence
from lad_eval.methods import make_method
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.models.inference.continuation import end_ids, select
from lad_eval.run.decide import Decision, PlanIndex, calibrated, decide
from lad_eval.tasks.plan import plan
from lad_eval.tasks.request import Request
from lad_eval.tasks.task import Task


class ReleasedWay:
    """Runs methods one by one.

    Attributes:
        passes: forward passes made so far.
    """

    def __init__(self, model: HuggingFaceVLM) -> None:
        """Takes a model that was loaded with eager attention."""
        self._model = model
        self.passes = 0

    def run(self, task: Task, methods: Sequence[str], limit: int) -> dict[str, Decision]:
        """Every method's answers to the first `limit` test samples under the task's orders."""
        return {name: self._run_one(task, name, limit) for name in methods}

    def _run_one(self, task: Task, name: str, limit: int) -> Decision:
        method = make_method(name)
        task_plan = plan(task, limit=limit, orders=frozenset({"identity", method.orders}), calibration=method.calibrates)
        requests = {request.key: request for request in task_plan.requests}
        orders = task_plan.cyclic if method.orders == "cyclic" else [(key,) for key in task_plan.evaluated]
        looking = "attention" in method.needs
        rows = {}
        for key in [*task_plan.calibration, *(key for keys in orders for key in keys)]:
            rows[key] = self._look(requests[key], attentions=looking)  # a repeated question is run again
        evidence, index = Evidence.concatenate(list(rows.values())), PlanIndex.of(task_plan)
        return decide(evidence, index, method, calibrated(evidence, index, method))

    @torch.inference_mode()
    def _look(self, request: Request, *, attentions: bool) -> Evidence:
        model = self._model
        batch = model._prepare([request])
        trie, inputs = batch.trie, model._to_device(batch.inputs)
        ends = end_ids(model.model, model.processor.tokenizer) if trie.needs_end else ()
        logits, attention = [], None
        for prefix, columns in _passes(batch.trie, ends):
            output = model.model(**_prolonged(inputs, prefix), logits_to_keep=1, output_attentions=attentions)
            self.passes += 1
            if columns:
                logits.append(select(output.logits[:, -1], columns).double().cpu().numpy())
            if attentions and attention is None:
                attention = _attention(batch.spans, output.attentions)
        return Evidence.from_arrays(
            trie.log_probs(logits, ends),
            attention,
            [request.gold_position],
            [request.sample_id],
            attention_delimited=attention,
            perm=[request.permutation.order],
            split=[request.split],
            key=[request.key],
        )


def _attention(spans: Spans, layers: Sequence[torch.Tensor]) -> npt.NDArray[np.float64]:
    """Float[1, L, N] of the last row, delimiters counted in, as the code does."""
    rows = [layer[0, :, -1].float().cpu().numpy() for layer in layers]
    ends = spans.delimited[0].tolist()
    return np.array([[[row[:, start:end].sum(axis=1).mean() for start, end in ends] for row in rows]])


def _passes(trie: Any, ends: Sequence[int]) -> list[tuple[tuple[int, ...], list[int]]]:
    """What is run, and which logits are read: the prompt itself always, as its attention is wanted."""
    choices = [(branch.prefix, branch.columns(ends)) for branch in trie.branches]
    return choices if not choices[0][0] else [((), []), *choices]


def _prolonged(inputs: dict[str, Any], prefix: tuple[int, ...]) -> dict[str, Any]:
    """Inputs of prompt and prefix."""
    shape = inputs["input_ids"].shape
    fillings = {"input_ids": list(prefix), "attention_mask": [1] * len(prefix)}
    return {
        key: torch.cat([value, value.new_tensor([fillings.get(key, [0] * len(prefix))])], dim=1)
        if prefix and isinstance(value, torch.Tensor) and value.shape == shape
        else value
        for key, value in inputs.items()
    }
