"""The count of a pruned prompt's arithmetic against PyTorch's own counter, on tiny random models."""

import pytest
from torch.utils.flop_counter import FlopCounterMode

from lad_eval.attention.hooks import decoder_layers
from lad_eval.attention.pruning.fastv import FastV
from lad_eval.attention.pruning.random_tokens import RandomTokens
from lad_eval.models.registry import load_model
from lad_eval.run.collect import under
from lad_eval.studies.pruning.flops import LayerLoad, cache_entries, layer_loads, prefill_flops
from lad_eval.tasks.registry import load_task


@pytest.fixture(scope="module")
def request_of_four():
    task = load_task("scenes_random_n4")
    return task.request(next(iter(task.samples("test", 1))), task.orders[0])


def counted(vlm, request, pruner):
    """Operations inside each of the decoder's layers, by PyTorch's counter; and our loads of the same pass."""
    layers = decoder_layers(vlm.model)
    (name,) = {name for name, module in vlm.model.named_modules() if module is layers}
    counter = FlopCounterMode(display=False, depth=20)

    def read_prompt():
        vlm.generate([request], max_new_tokens=1)

    with under(vlm, pruner):
        loads = layer_loads(vlm.model, read_prompt)
        with counter:
            read_prompt()
    counts = counter.get_flop_counts()
    return [sum(counts[f"{type(vlm.model).__name__}.{name}.{index}"].values()) for index in range(len(layers))], loads


@pytest.mark.parametrize("family", ["qwen2.5-vl", "llava-1.5"])
@pytest.mark.parametrize("pruner", [None, RandomTokens(keep=0.25, layer=1), FastV(keep=0.25), FastV(keep=0.0)])
def test_the_count_is_pytorchs(family, pruner, request_of_four):
    # PyTorch's counter knows the matrix products of eager attention.
    vlm = load_model(f"random:{family}", dtype="float32", device="cpu", attn_implementation="eager")
    reference, loads = counted(vlm, request_of_four, pruner)
    ours = [prefill_flops([load], 1) for load in loads]
    if isinstance(pruner, FastV):  # the scores of one query, which the hook before its layer makes, and which we leave out
        ours[pruner.layer] += 2 * loads[0].tokens * loads[0].width
    assert ours == reference
    assert (len({load.tokens for load in loads}) > 1) == (pruner is not None)


def test_loads_by_hand():
    # Two layers of width 8 with 2 of 4 heads for keys; 10 tokens, then 4.
    loads = [LayerLoad(0, 10, 8, 4, 100), LayerLoad(1, 4, 8, 4, 100)]
    assert prefill_flops(loads, 2) == (2 * 10 * 100 + 4 * 100 * 8) + (2 * 4 * 100 + 4 * 16 * 8)
    assert cache_entries(loads) == 2 * 4 * (10 + 4)


def test_what_cannot_be_counted_is_not():
    loads = [LayerLoad(0, 10, 8, 4, 100), LayerLoad(1, 4, 8, 4, None)]
    assert prefill_flops(loads, 2) is None  # a layer with experts
    assert prefill_flops(loads[:1], 2) is None  # a layer that does not attend
