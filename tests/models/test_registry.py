"""Names of models, and what is said when one cannot be had."""

import gc
import inspect
import json
import shutil
import subprocess
import sys
import weakref

import numpy as np
import pytest

from lad_eval.errors import UnknownNameError, UnsupportedModelError, UserError
from lad_eval.models.registry import check_model_name, load_model, model_names
from tests.models.requests import make_requests


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "qwen"
    for part in tiny("qwen2.5-vl"):
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "qwen")


def refusal(name, **options):
    with pytest.raises(UserError) as caught:
        load_model(str(name), device=options.pop("device", "cpu"), **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_names_are_listed_without_torch():
    code = "import sys; from lad_eval.models import model_names; print(*model_names()); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "lad-tiny"
    assert "random:qwen2.5-vl" in done.stdout.split()
    assert "random:qwen2.5-vl-3b" in model_names()


def test_loading_is_not_interrupted_by_the_garbage_collector():
    searches = []
    record = lambda phase, info: searches.append(info["generation"])  # noqa: E731
    gc.callbacks.append(record)
    try:
        load_model("lad-tiny", device="cpu")
        seen = list(searches)
    finally:
        gc.callbacks.remove(record)
    assert seen == []
    assert gc.isenabled()
    assert "adapter" in inspect.signature(load_model).parameters  # the plug-ins ask which options there are


def test_a_cycle_from_before_loading_is_still_collected():
    class Node:
        pass

    node = Node()
    node.itself = node
    alive = weakref.ref(node)
    load_model("lad-tiny", device="cpu")
    del node
    assert alive() is not None
    gc.collect()
    assert alive() is None
    assert gc.get_freeze_count() == 0


def test_loading_leaves_the_collector_as_the_program_had_it():
    gc.disable()
    try:
        load_model("lad-tiny", device="cpu")
        assert not gc.isenabled()
    finally:
        gc.enable()
    refusal("no-such-model")
    assert gc.isenabled()
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        load_model("lad-tiny", device="cpu")
        assert frozen * 0.9 < gc.get_freeze_count() <= frozen
    finally:
        gc.unfreeze()


def test_a_saved_model_answers_as_the_one_it_was_saved_from(saved, vlm):
    requests = make_requests(4, 2)
    loaded = load_model(str(saved), device="cpu", image_preparation="native", batch_size=2)
    assert loaded.fingerprint["dtype"] == "float32", "auto is float32 on the CPU"
    np.testing.assert_allclose(loaded.evidence(requests).log_probs, vlm("qwen2.5-vl").evidence(requests).log_probs, atol=1e-5)


def test_random_weights_follow_family_and_seed():
    requests = make_requests(3, 1)
    first, again, other = (load_model("random:llava-1.5", device="cpu", seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint
    np.testing.assert_array_equal(first.evidence(requests).log_probs, again.evidence(requests).log_probs)
    assert not np.allclose(first.evidence(requests).log_probs, other.evidence(requests).log_probs)


def test_half_precision_and_eager_attention_are_taken_and_told():
    model = load_model("random:qwen2.5-vl", dtype="bfloat16", attn_implementation="eager", device="cpu")
    assert (model.fingerprint["dtype"], model.fingerprint["attn_implementation"]) == ("bfloat16", "eager")
    assert np.exp(model.evidence(make_requests(4, 1)).log_probs).sum() == pytest.approx(1)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match=r"Unknown model 'lad-tny'\. Did you mean 'lad-tiny'\?"):
        load_model("lad-tny")
    assert "Did you mean 'random:qwen2.5-vl'" in refusal("random:qwen2.5vl")
    with pytest.raises(UnknownNameError):
        check_model_name("gpt2")


def test_folders_that_are_none(tmp_path):
    assert refusal("./no-such-folder") == "There is no model folder ./no-such-folder."
    assert "There is no model folder" in refusal(tmp_path / "nothing")
    (tmp_path / "weights.bin").touch()
    assert "is a file; a model is a folder" in refusal(tmp_path / "weights.bin")


@pytest.mark.parametrize(
    ("files", "part"),
    [
        (["config.json"], r"lacks the configuration (config.json)"),
        (["processor_config.json"], "lacks the image processor (preprocessor_config.json or processor_config.json)"),
        (["tokenizer.json", "tokenizer_config.json"], "lacks the tokenizer (tokenizer.json"),
        (["model.safetensors"], "lacks the weights (*.safetensors)"),
    ],
)
def test_a_folder_names_what_it_lacks(copied, files, part):
    for file in files:
        (copied / file).unlink()
    assert part in refusal(copied)


def test_a_folder_without_a_chat_template(copied):
    (copied / "chat_template.jinja").unlink()
    assert "no chat template" in refusal(copied)


def test_a_chat_template_without_images(copied):
    (copied / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}:{% endfor %}")
    assert "its chat template does not place images ('<|image_pad|>' is missing" in refusal(copied)


def test_damaged_files(copied):
    weights = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(b"garbage" * 100)
    assert "cannot be loaded" in refusal(copied)
    (copied / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "cannot be loaded" in refusal(copied)
    (copied / "config.json").write_text("{")
    assert "not a valid JSON file" in refusal(copied)


def test_weights_that_lack_a_layer_are_not_filled_up_at_random(copied):
    config = json.loads((copied / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] += 1
    config["text_config"].pop("layer_types", None)
    (copied / "config.json").write_text(json.dumps(config))
    assert "the weights lack 12 of the model's parameters" in refusal(copied)


def test_models_of_other_kinds(copied):
    (copied / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(
        UnsupportedModelError, match="is not an image-text-to-text model: transformers knows its architecture 'llama'"
    ):
        load_model(str(copied))
    (copied / "config.json").write_text(json.dumps({"model_type": "of-tomorrow"}))
    assert "of-tomorrow" in refusal(copied)


def test_a_hub_that_cannot_be_reached_says_how_to_go_on():
    text = refusal("some-org/some-model")
    assert "the hub cannot be reached" in text
    assert "hf download some-org/some-model --local-dir <folder>" in text


def test_wrong_options(saved):
    assert refusal(saved, dtype="int8") == "Unknown dtype 'int8': use auto, float32, bfloat16 or float16."
    assert "sees no GPU here; use --device cpu" in refusal(saved, device="cuda")
    assert "Unknown device 'gpu'" in refusal(saved, device="gpu")
    assert "Unknown attention implementation 'eagr': use sdpa, eager," in refusal(saved, attn_implementation="eagr")
    assert "'flash_attention_2' is not available" in refusal(saved, attn_implementation="flash_attention_2")
    assert "batch size must be a positive whole number" in refusal(saved, batch_size=-1)
    assert "A revision is for hub models" in refusal(saved, revision="main")


def test_a_model_of_the_hub_is_known_by_its_commit(saved, tmp_path, monkeypatch):
    """The hub's cache folder stands in for the hub: that is what is read without a network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--some-org--some-model"
    shutil.copytree(saved, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for revision in (None, "main", commit):
        model = load_model("some-org/some-model", device="cpu", revision=revision)
        assert model.fingerprint["weights"] == f"some-org/some-model@{commit}"
    assert "the hub cannot be reached" in refusal("some-org/some-model", revision="v2")


def test_a_very_small_model_on_the_cpu_takes_one_thread_unless_told_otherwise(monkeypatch):
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        load_model("lad-tiny")
        assert torch.get_num_threads() == 3
        monkeypatch.delenv("OMP_NUM_THREADS")
        load_model("lad-tiny")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
