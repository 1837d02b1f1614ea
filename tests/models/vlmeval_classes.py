"""The real classes of VLMEvalKit, constructed by their own constructors, around tiny random models on the CPU.

Their constructors and their `generate_inner` name a GPU, half precision and FlashAttention; `on_the_cpu` reads those words as
what this machine has. Everything else is VLMEvalKit's and transformers' own code.
"""

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from unittest.mock import patch

import torch

from lad_eval.models.random.build import _FAMILIES, build
from lad_eval.models.vlmeval.kit import kit

HALF = (torch.float16, torch.bfloat16)


def _here(value):
    if isinstance(value, (str, torch.device)) and str(value).startswith("cuda"):
        return "cpu"
    return torch.float32 if value in HALF else value


@contextmanager
def on_the_cpu():
    import transformers

    attention = transformers.PreTrainedModel.get_correct_attn_implementation
    tensor_to, module_to = torch.Tensor.to, torch.nn.Module.to
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

    load, load_auto = transformers.PreTrainedModel.from_pretrained.__func__, _BaseAutoModelClass.from_pretrained.__func__

    def translated(function):
        def to(self, *args, **kwargs):
            return function(self, *map(_here, args), **{key: _here(value) for key, value in kwargs.items()})

        return to

    def plain(function):
        def from_pretrained(cls, *args, **kwargs):
            for name in ("device_map", "attn_implementation", "_attn_implementation", "torch_dtype", "dtype"):
                kwargs.pop(name, None)
            return function(cls, *args, dtype=torch.float32, **kwargs)

        return classmethod(from_pretrained)

    def without_flash(self, requested, *args, **kwargs):
        return attention(self, None if requested == "flash_attention_2" else requested, *args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(patch.object(torch.Tensor, "to", translated(tensor_to)))
        stack.enter_context(patch.object(torch.nn.Module, "to", translated(module_to)))
        stack.enter_context(patch.object(torch.nn.Module, "cuda", lambda self, *args: self))
        stack.enter_context(patch.object(transformers.PreTrainedModel, "from_pretrained", plain(load)))
        stack.enter_context(patch.object(_BaseAutoModelClass, "from_pretrained", plain(load_auto)))
        stack.enter_context(patch.object(transformers.PreTrainedModel, "get_correct_attn_implementation", without_flash))
        for module in ("qwen2_vl.model", "qwen3_vl.model", "vlm_r1", "vlaa_thinker", "wethink_vl", "treevgr", "covt"):
            where = kit(f"vlmeval.vlm.{module}")
            if hasattr(where, "get_gpu_memory"):
                stack.enter_context(patch.object(where, "get_gpu_memory", lambda: [1]))
        old = {"AutoModelForVision2Seq": transformers.AutoModelForImageTextToText}
        for name, now in old.items():
            if not hasattr(transformers, name):
                stack.enter_context(patch.object(transformers, name, now, create=True))
        yield


def save(family, folder):
    """A tiny model in a folder, as `from_pretrained` reads it."""
    kind = _FAMILIES[family]
    if family == "qwen3-vl":  # Qwen3VLChat writes the published patch size, 16, into its own code
        tiny, patches = kind.shapes[""], {"patch_size": 16}
        images = {**tiny.images, **patches, "min_pixels": 64 * 64, "max_pixels": 128 * 128}
        kind = replace(kind, shapes={"": replace(tiny, vision={**tiny.vision, **patches}, images=images)})
    with patch.dict(_FAMILIES, {family: kind}):
        model, processor = build(family, seed=1, dtype=None, device=None, attn_implementation=None)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
