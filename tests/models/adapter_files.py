"""Adapters of noise on disk, as `lad-eval capl train` leaves them."""

import json

import pytest
import torch

from lad_eval.models.registry import load_model


def save_noise_adapter(folder, base, attention):
    """A LoRA adapter that changes the base's answers, with what its training is said to have been under."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, lora_alpha=32, target_modules=["q_proj", "v_proj"])
    adapted = peft.get_peft_model(load_model(base, device="cpu").model, config)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    adapted.save_pretrained(folder)
    written = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**written, "base_model_name_or_path": base}))
    (folder / "training.json").write_text(json.dumps({"attention": attention}))
    return folder
