"""What determines evidence is in the fingerprint, and nothing else is."""

import json
import shutil

import pytest
import torch

from lad_eval.models.fingerprint import folder_identity
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.models.random import load_random
from lad_eval.models.registry import load_model


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "qwen"
    for part in tiny("qwen2.5-vl"):
        part.save_pretrained(folder)
    return folder


def test_is_plain_json_and_says_neither_device_nor_batch_size(vlm):
    fingerprint = vlm("qwen2.5-vl", batch_size=3).fingerprint
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert fingerprint == vlm("qwen2.5-vl", batch_size=5).fingerprint
    assert set(fingerprint["versions"]) == {"lad_eval", "torch", "transformers", "torchvision", "tokenizers", "pillow"}
    assert "cpu" not in json.dumps({k: v for k, v in fingerprint.items() if k != "versions"})


def test_image_preparation_and_processor_settings_count(vlm):
    native = vlm("qwen2.5-vl", image_preparation="native").fingerprint
    assert native != vlm("qwen2.5-vl", image_preparation="protocol").fingerprint
    model, processor = load_random("qwen2.5-vl", seed=1)
    processor.image_processor.image_mean = [0.0, 0.0, 0.0]
    changed = HuggingFaceVLM(model, processor, name="random:qwen2.5-vl", weights="seed 1", image_preparation="native")
    assert {k for k in native if native[k] != changed.fingerprint[k]} == {"image_processor"}


def test_a_folder_is_known_by_its_files_not_by_its_place(saved, tmp_path):
    moved = shutil.copytree(saved, tmp_path / "elsewhere" / saved.name)
    assert load_model(str(saved), device="cpu").fingerprint == load_model(str(moved), device="cpu").fingerprint


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "chat_template.jinja", "processor_config.json"])
def test_one_byte_of_any_file_counts(saved, tmp_path, file):
    copy = shutil.copytree(saved, tmp_path / "copy")
    before = folder_identity(copy)
    (copy / "README.md").write_text("a note")
    assert folder_identity(copy) == before
    (copy / file).write_bytes((copy / file).read_bytes() + b" ")
    assert folder_identity(copy) != before


def test_a_model_given_as_such_is_known_by_its_weights():
    model, processor = load_random("qwen2.5-vl", seed=1)
    first = HuggingFaceVLM(model, processor).fingerprint["weights"]
    assert first.startswith("sha256:")
    assert HuggingFaceVLM(model, processor).fingerprint["weights"] == first
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    assert HuggingFaceVLM(model, processor).fingerprint["weights"] != first
