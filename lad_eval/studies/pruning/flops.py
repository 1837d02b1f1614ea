"""FLOPs and key-value cache of a prompt in each decoder layer, counted from the tokens that reach the layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from lad_eval.attention.hooks import AttentionCall


@dataclass(frozen=True)
class LayerLoad:
    """The load of one decoder layer that attends, for one prompt.

    Attributes:
        layer: index in the decoder.
        tokens: n, tokens of the prompt that reach the layer.
        width: A, of its queries: heads x head size.
        cache_width: of its keys: key-value heads x head size.
        weights: W, entries of its weight matrices; None where a layer is not attention and a dense MLP, so that W says nothing
            (mixtures of experts, matrices that are not `torch.nn.Linear`).
    """

    layer: int
    tokens: int
    width: int
    cache_width: int
    weights: int | None


def layer_loads(model: Any, run: Callable[[], object]) -> list[LayerLoad]:
    """The load of every decoder layer that attends, observed while a model reads one prompt.

    Args:
        model: of transformers.
        run: runs the model on one prompt, without padding.

    Raises:
        UnsupportedModelError: see `attention_layers`.
    """
    from lad_eval.attention.hooks import decoder_layers, observe_attention

    layers = decoder_layers(model)
    loads: dict[int, LayerLoad] = {}

    def note(call: AttentionCall) -> None:
        if call.layer in loads:  # a later step, which continues the prompt
            return
        _, heads, tokens, size = call.query.shape
        width = int(heads * size)
        cache_width = int(call.key.shape[1] * call.key.shape[3])
        loads[call.layer] = LayerLoad(call.layer, int(tokens), width, cache_width, _weights(layers[call.layer]))

    with observe_attention(model, note):
        run()
    return [loads[layer] for layer in sorted(loads)]


def _weights(layer: torch.nn.Module) -> int | None:
    """Entries of a layer's weight matrices, as they are multiplied with every token; None where some are not."""
    from torch import nn

    linear = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    known = {id(parameter) for module in linear for parameter in module.parameters(recurse=False)}
    others = [parameter for parameter in layer.parameters() if parameter.ndim > 1 and id(parameter) not in known]
    experts = any(isinstance(module, nn.ModuleList) for module in layer.modules())
    return None if others or experts else sum(module.in_features * module.out_features for module in linear)


def prefill_flops(loads: Sequence[LayerLoad], depth: int) -> int | None:
    """Floating-point operations of the decoder layers for one prompt (prefill).

    The sum over layers of 2 n W + 4 n^2 A, with n tokens, W weights and width A as in `LayerLoad`: a multiplication and an
    addition for every token and weight, and for every pair of tokens and every feature of the scores (Q K^T) and of the mixed
    values. Pairs that a causal mask hides count, as in FastV's formula (arXiv 2403.06764), which counts multiplications
    only, of an MLP with two matrices. Norms, biases, softmax, activations, the ranking of tokens, the vision
    tower and the output head are left out.

    Args:
        loads: of the layers that attend.
        depth: number of decoder layers.

    Returns:
        None where a layer does not attend, or is not a dense one.
    """
    if len(loads) < depth:
        return None
    total = 0
    for load in loads:
        if load.weights is None:
            return None
        total += 2 * load.tokens * load.weights + 4 * load.tokens**2 * load.width
    return total


def cache_entries(loads: Sequence[LayerLoad]) -> int:
    """Numbers in the key-value cache after one prompt: the sum over layers of 2 n x key width."""
    return sum(2 * load.tokens * load.cache_width for load in loads)
