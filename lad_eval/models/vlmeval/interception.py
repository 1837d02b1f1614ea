"""Replaces `generate` on the instance of a model while it gives one reply, and restores it.

There are two cases. Where a model generates with transformers' own `generate`, that one is replaced. Where a model has a
`generate` of its own (remote code such as InternVL's, which merges the images' features into the embeddings and then calls
`generate` of its language model), it runs, and the one of its language model is replaced.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from lad_eval.errors import UnsupportedModelError

_ABSENT = object()
_IDS = ("input_ids", "inputs")
# Arguments of `generate` that are neither inputs of the model nor generation settings.
_MACHINERY = frozenset({"tokenizer", "assistant_tokenizer", "trust_remote_code", "custom_generate", "kwargs", "self"})


@dataclass(frozen=True)
class GenerateCall:
    """One call of `generate`, its arguments separated into inputs and settings.

    Attributes:
        module: the model whose forward pass gives the logits.
        generate: its own `generate`, bound.
        inputs: of the forward pass: input_ids or inputs_embeds, attention_mask, pixels, ...
        settings: everything else: generation settings, stopping criteria, ...
    """

    module: Any
    generate: Callable[..., Any]
    inputs: dict[str, Any]
    settings: dict[str, Any]


class GenerateHandler(Protocol):
    """What runs in place of `generate`."""

    def prepare_inputs(self, ids: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs, their prompt ending where the candidates begin; `ids` is the prompt, Int[1, T], before anything is run."""
        ...

    def answer(self, call: GenerateCall) -> tuple[list[int], list[int]]:
        """Tokens of the reply, as they follow the class's own prompt, and as they follow the prompt of `prepare_inputs`."""
        ...


@contextmanager
def intercepted(model: Any, handler: GenerateHandler) -> Iterator[None]:
    """While the context is open, `handler` replaces `model.generate`; afterwards the instance is exactly as before.

    Raises:
        UnsupportedModelError: nothing in the model generates through transformers' `generate`.
    """
    replacement = _GenerateReplacement(model, handler)
    held: list[tuple[dict[str, Any], Any]] = []
    try:
        for module, function in replacement.functions():
            held.append((vars(module), vars(module).get("generate", _ABSENT)))
            vars(module)["generate"] = function
        yield
    finally:
        for names, before in reversed(held):
            if before is _ABSENT:
                names.pop("generate", None)
            else:
                names["generate"] = before


def generates_itself(model: Any) -> bool:
    """Whether a model's `generate` is transformers' own."""
    from transformers.generation.utils import GenerationMixin

    return isinstance(model, GenerationMixin) and _function(type(model).generate) is _function(GenerationMixin.generate)


def generating_modules(model: Any) -> list[Any]:
    """The modules whose `generate` is transformers' own: the model itself, or else those inside it.

    Raises:
        UnsupportedModelError: there are none, or the model around them has no `generate`.
    """
    if generates_itself(model):
        return [model]
    inner = [m for m in model.modules() if m is not model and generates_itself(m)] if hasattr(model, "modules") else []
    if not callable(getattr(model, "generate", None)) or not inner:
        raise UnsupportedModelError(
            f"{type(model).__name__} is not supported: neither it nor a model inside it answers through transformers' `generate`."
        )
    return inner


class _GenerateReplacement:
    def __init__(self, model: Any, handler: GenerateHandler) -> None:
        self._model = model
        self._handler = handler
        self._aligned: dict[str, Any] | None = None
        self._length = 0

    def functions(self) -> list[tuple[Any, Callable[..., Any]]]:
        """The modules to change, and what their `generate` becomes."""
        model = self._model
        inner = generating_modules(model)
        if inner == [model]:
            return [(model, self._direct(model))]
        return [(model, self._outer(model)), *((module, self._inner(module)) for module in inner)]

    def _direct(self, model: Any) -> Callable[..., Any]:
        original = model.generate

        def generate(*args: Any, **kwargs: Any) -> Any:
            inputs, settings = _inputs_and_settings(_flat(original, args, kwargs))
            if "inputs" in inputs:
                inputs["input_ids"] = inputs.pop("inputs")
            ids = _prompt(inputs, type(model).__name__)
            if inputs.get("inputs_embeds") is not None:
                raise UnsupportedModelError(
                    f"{type(model).__name__} is given embeddings in addition to its prompt's tokens, so that its images "
                    "cannot be placed."
                )
            aligned = self._handler.prepare_inputs(ids, inputs)
            reply, _ = self._handler.answer(GenerateCall(model, original, aligned, settings))
            return _packed(model, torch.cat([ids, _row(reply, ids)], dim=1), settings)

        return generate

    def _outer(self, model: Any) -> Callable[..., Any]:
        original = model.generate

        def generate(*args: Any, **kwargs: Any) -> Any:
            arguments = _flat(original, args, kwargs)
            _prompt(arguments, type(model).__name__)
            key = next(key for key in _IDS if arguments.get(key) is not None)
            ids = arguments[key]
            arguments["input_ids"] = arguments.pop(key)
            aligned = self._handler.prepare_inputs(ids, arguments)
            self._length = aligned["input_ids"].shape[1]
            self._aligned = dict(aligned)
            aligned[key] = aligned.pop("input_ids")
            try:
                return original(**aligned)
            finally:
                self._aligned = None

        return generate

    def _inner(self, module: Any) -> Callable[..., Any]:
        original = module.generate

        def generate(*args: Any, **kwargs: Any) -> Any:
            inputs, settings = _inputs_and_settings(_flat(original, args, kwargs))
            name = type(module).__name__
            if self._aligned is None:
                raise UnsupportedModelError(
                    f"{type(self._model).__name__} is not supported: its class calls {name} with embeddings, so it is "
                    "unknown which of them are images."
                )
            if "inputs" in inputs:
                inputs["input_ids"] = inputs.pop("inputs")
            embeds = inputs.get("inputs_embeds")
            features = embeds if embeds is not None else inputs.get("input_ids")
            if features is None or features.shape[:2] != (1, self._length):
                raise UnsupportedModelError(
                    f"{type(self._model).__name__} is not supported: it turns a prompt of {self._length} tokens into "
                    f"{'something else' if features is None else list(features.shape[:2])}, so that its images cannot be placed."
                )
            _, reply = self._handler.answer(GenerateCall(module, original, inputs, settings))
            ids = inputs.get("input_ids")
            if ids is None:  # as in transformers, a reply to embeddings comes without the prompt
                ids = torch.zeros((1, 0), dtype=torch.long, device=features.device)
            return _packed(module, torch.cat([ids, _row(reply, ids)], dim=1), settings)

        return generate


def _function(method: Any) -> Any:
    return inspect.unwrap(getattr(method, "__func__", method))


def _flat(generate: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name, those that are None left out."""
    bound = inspect.signature(generate).bind(*args, **kwargs)
    arguments: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(value)
        elif bound.signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            raise UnsupportedModelError(f"`generate` of an unknown form: it takes {name} by position.")
        else:
            arguments[name] = value
    return {name: value for name, value in arguments.items() if value is not None}


def _inputs_and_settings(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    from transformers import GenerationConfig
    from transformers.generation.utils import GenerationMixin

    of_generate = set(inspect.signature(GenerationMixin.generate).parameters) - {"inputs"}
    settings = of_generate | set(vars(GenerationConfig())) | _MACHINERY
    inputs = {name: value for name, value in arguments.items() if name not in settings}
    return inputs, {name: value for name, value in arguments.items() if name in settings}


def _prompt(inputs: Mapping[str, Any], name: str) -> torch.Tensor:
    ids = next((inputs[key] for key in _IDS if inputs.get(key) is not None), None)
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or ids.is_floating_point():
        raise UnsupportedModelError(f"{name} is not supported: its class calls `generate` without the prompt's tokens.")
    if len(ids) != 1:
        raise UnsupportedModelError(f"{name} is not supported: its class runs {len(ids)} prompts at once.")
    return ids


def _row(tokens: list[int], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor([tokens], dtype=like.dtype, device=like.device)


def _packed(module: Any, sequences: torch.Tensor, settings: Mapping[str, Any]) -> Any:
    """The sequences in the form that the settings require."""
    config = settings.get("generation_config")
    wants = settings.get("return_dict_in_generate", getattr(config, "return_dict_in_generate", None))
    if wants is None:
        wants = getattr(getattr(module, "generation_config", None), "return_dict_in_generate", False)
    if not wants:
        return sequences
    from transformers.generation.utils import GenerateDecoderOnlyOutput

    return GenerateDecoderOnlyOutput(sequences=sequences)
