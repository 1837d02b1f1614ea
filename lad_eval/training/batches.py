"""Pairs as batches for a trainer: prompts exactly as in evaluation, each followed by an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lad_eval.errors import DataError
from lad_eval.models.inference.continuation import with_positions
from lad_eval.models.inputs.preparation import Preparation
from lad_eval.tasks.request import Request
from lad_eval.tasks.task import Task
from lad_eval.training.answers import training_samples
from lad_eval.training.pairs import AnswerPair, PairSet

LAYOUT = "layout"
"""Entry of a batch: the `PromptLayout` of its rows, for the intervention in the training step."""


class PairCollator:
    """Makes a batch of 2 B rows from B pairs: the prompts with their chosen answers, then with the rejected ones.

    Prompts are padded on the left, answers on the right. An answer is the candidate's tokens and the token that ends a reply,
    without the chat template's text after a reply, which a model never generates.

    Args:
        model: of transformers.
        prepare: makes the prompts.
        examples: requests with their pairs, by the row number that the trainer's data set gives.
        end: token id that ends a reply.
        pad: token id of padding.
    """

    def __init__(
        self, model: Any, prepare: Preparation, examples: Sequence[tuple[Request, AnswerPair]], *, end: int, pad: int
    ) -> None:
        self._model, self._prepare, self._examples, self._end, self._pad = model, prepare, examples, end, pad

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The inputs of the model, `completion_mask` Int[2 B, T], and the layout."""
        chosen = [self._examples[int(row["row"])] for row in rows]
        batch = self._prepare([request for request, _ in chosen] * 2)
        answers = [batch.trie.candidates[pair.chosen] for _, pair in chosen]
        answers += [batch.trie.candidates[pair.rejected] for _, pair in chosen]
        width = max(map(len, answers)) + 1
        completions = torch.tensor([[*answer, self._end, *[self._pad] * (width - 1 - len(answer))] for answer in answers])
        real = torch.tensor([[1] * (len(answer) + 1) + [0] * (width - 1 - len(answer)) for answer in answers])
        shape = batch.inputs["input_ids"].shape
        behind = {"input_ids": completions, "attention_mask": real}
        inputs = {}
        for name, value in batch.inputs.items():
            if isinstance(value, torch.Tensor) and value.shape == shape:
                filling = behind.get(name, torch.zeros_like(completions))  # token types: 0 is text
                inputs[name] = torch.cat([value, filling.to(value)], dim=1)
            elif isinstance(value, torch.Tensor) and value.is_floating_point():
                inputs[name] = value.to(self._model.dtype)
            else:
                inputs[name] = value
        mask = torch.cat([torch.zeros(shape, dtype=torch.long), real], dim=1)
        layout = batch.layout.extended([self._pad] * width)
        return {**with_positions(self._model, inputs), "completion_mask": mask, LAYOUT: layout}


def examples_of(pairs: PairSet, tasks: Mapping[str, Task]) -> list[tuple[Request, AnswerPair]]:
    """The requests of pairs, rebuilt from the tasks' training samples.

    Args:
        pairs: whose requests.
        tasks: by name.

    Raises:
        DataError: a task's samples are not those that the pairs were made of.
    """
    wanted = {pair.key: pair for pair in pairs.pairs}
    examples = {}
    for name, task in tasks.items():
        orders: dict[str, list[AnswerPair]] = {}
        for pair in pairs.pairs:
            if pair.task == name:
                orders.setdefault(pair.sample_id, []).append(pair)
        for sample in training_samples(task, pairs.limit):
            for pair in orders.pop(sample.id, ()):
                request = task.request(sample, pair.permutation)
                examples[request.key] = (request, pair)
            if not orders:
                break
    if missing := [pair.sample_id for key, pair in wanted.items() if key not in examples]:
        raise DataError(
            f"{len(missing)} pairs, such as that of {missing[0]}, are of samples that their tasks no longer have; make the pairs "
            "again with `lad-eval capl answers`."
        )
    return [examples[key] for key in wanted]
