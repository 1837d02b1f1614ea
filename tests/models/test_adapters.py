"""A PEFT adapter is applied on purpose, equal to the merged model, or refused in one line; never left out."""

import copy
import json
import shutil
import sys

import numpy as np
import pytest
import torch

from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.models.random import load_random
from lad_eval.models.registry import load_model
from lad_eval.models.source import display_name
from tests.models.requests import make_requests

peft = pytest.importorskip("peft")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1\n".format("0" * 64)
FAMILIES = ("qwen2.5-vl", "llava-onevision")
ARRAYS = ("log_probs", "attention", "attention_delimited")


def adapt(model, config=None, seed=0):
    """A PEFT model around a copy of the model, whose adapter changes its answers."""
    config = config or peft.LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "v_proj", "o_proj"])
    adapted = peft.get_peft_model(copy.deepcopy(model), config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad and "modules_to_save" not in name:
                parameter.normal_(std=0.3)
    return adapted.eval()


class Made:
    """A base, an adapter and what both give when peft merges them, on disk and in memory."""

    def __init__(self, family, folder, config=None):
        model, self.processor = load_random(family, seed=1)
        self.base = folder / "bases" / family
        self.adapter = folder / "run-a" / "checkpoint-500"
        for part in (model, self.processor):
            part.save_pretrained(self.base)
        model.config._name_or_path = model.name_or_path = str(self.base)
        adapted = adapt(model, config)
        adapted.save_pretrained(self.adapter)
        self.plain = HuggingFaceVLM(model, self.processor, name="base", weights="base")
        self.merged = HuggingFaceVLM(adapted.merge_and_unload(), self.processor, name="merged", weights="merged")


@pytest.fixture(scope="module", params=FAMILIES)
def made(request, tmp_path_factory):
    return Made(request.param, tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return Made("qwen2.5-vl", tmp_path_factory.mktemp("qwen"))


@pytest.fixture
def adapter(qwen, tmp_path):
    return shutil.copytree(qwen.adapter, tmp_path / "run-a" / "checkpoint-500")


@pytest.fixture
def both(qwen, tmp_path):
    folder = shutil.copytree(qwen.base, tmp_path / "runs" / "both")
    shutil.copytree(qwen.adapter, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def without_peft(monkeypatch):
    """As where peft is not installed: it is neither found nor imported."""
    monkeypatch.setitem(sys.modules, "peft", None)


def refusal(name, **options):
    with pytest.raises(UserError) as caught:
        load_model(str(name), device="cpu", **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def rows(model):
    return model.evidence(make_requests(4, 3))


def assert_equal_rows(first, second):
    one, other = rows(first), rows(second)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert first.generate(make_requests(4, 2)) == second.generate(make_requests(4, 2))


def test_an_adapter_changes_the_answers_of_these_tests(made):
    assert not np.allclose(rows(made.plain).log_probs, rows(made.merged).log_probs, atol=0.01)


def test_an_adapter_alone_is_loaded_on_the_base_that_it_names(made):
    model = load_model(str(made.adapter), device="cpu")
    assert model.name == f"bases/{made.base.name}+run-a/checkpoint-500" == display_name(str(made.adapter))
    assert_equal_rows(model, made.merged)


def test_a_folder_with_base_and_adapter_is_the_base_with_the_adapter(made, tmp_path):
    folder = shutil.copytree(made.base, tmp_path / "runs" / "both")
    shutil.copytree(made.adapter, folder, dirs_exist_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "some-org/elsewhere"}))
    model = load_model(str(folder), device="cpu")
    assert model.name == "runs/both+adapter" == display_name(str(folder))
    assert_equal_rows(model, made.merged)


def test_a_named_adapter_is_merged_into_the_named_model(made):
    model = load_model(str(made.base), adapter=str(made.adapter), device="cpu")
    assert model.name == f"bases/{made.base.name}+run-a/checkpoint-500"
    assert_equal_rows(model, made.merged)
    assert model.fingerprint == load_model(str(made.adapter), device="cpu").fingerprint, "one model, named in two ways"


def test_base_and_adapter_are_both_in_the_fingerprint(both, qwen):
    with_adapter, base = load_model(str(both), device="cpu").fingerprint, load_model(str(qwen.base), device="cpu").fingerprint
    assert with_adapter["weights"] == base["weights"]
    assert with_adapter["adapter"].startswith("sha256:")
    assert "adapter" not in base
    (both / "trainer_state.json").write_text("{}")
    assert load_model(str(both), device="cpu").fingerprint == with_adapter
    (both / "adapter_config.json").write_bytes((both / "adapter_config.json").read_bytes() + b" ")
    changed = load_model(str(both), device="cpu").fingerprint
    assert {key for key in changed if changed[key] != with_adapter[key]} == {"adapter"}
    (both / "generation_config.json").write_text('{"eos_token_id": 1}')
    assert load_model(str(both), device="cpu").fingerprint["weights"] != base["weights"]


def test_a_base_that_is_a_random_model_takes_an_adapter(qwen):
    model = load_model("random:qwen2.5-vl", seed=1, adapter=str(qwen.adapter), device="cpu")
    assert model.name == "random:qwen2.5-vl+run-a/checkpoint-500"
    assert_equal_rows(model, qwen.merged)


@pytest.mark.parametrize("place", ["adapter", "both"])
def test_without_peft_nothing_is_loaded(place, request, without_peft):
    folder = request.getfixturevalue(place)
    text = refusal(folder)
    assert "with a PEFT adapter, and peft is not installed: `" in text
    assert display_name(str(folder)) in text


def test_without_peft_a_model_without_an_adapter_is_loaded(qwen, without_peft):
    assert_equal_rows(load_model(str(qwen.base), device="cpu"), qwen.plain)


def test_the_processor_that_was_saved_with_the_adapter_is_used(qwen, adapter):
    processor = copy.deepcopy(qwen.processor)
    processor.chat_template = "{{ '' }}" + processor.chat_template
    processor.save_pretrained(adapter)
    model, base = load_model(str(adapter), device="cpu"), load_model(str(qwen.base), device="cpu")
    assert model.fingerprint["chat_template"] != base.fingerprint["chat_template"]
    assert model.fingerprint["adapter"] != load_model(str(qwen.adapter), device="cpu").fingerprint["adapter"]


def test_a_base_without_a_processor_is_enough_where_the_adapter_has_one(qwen, adapter, tmp_path):
    base = shutil.copytree(qwen.base, tmp_path / "bare")
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (base / name).unlink()
    assert "lacks the image processor" in refusal(base, adapter=str(adapter))
    qwen.processor.save_pretrained(adapter)
    assert_equal_rows(load_model(str(base), adapter=str(adapter), device="cpu"), qwen.merged)


def test_a_tokenizer_with_other_tokens_than_the_bases_is_refused(qwen, adapter):
    tokenizer = copy.deepcopy(qwen.processor.tokenizer)
    tokenizer.save_pretrained(adapter)
    assert_equal_rows(load_model(str(adapter), device="cpu"), qwen.merged)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(adapter)
    assert "a tokenizer of its own with other tokens than its base's" in refusal(adapter)


def configured(folder, **changes):
    path = folder / "adapter_config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "absent"}))


def test_a_base_that_is_not_here_is_named(adapter):
    configured(adapter, base_model_name_or_path="/of/another/machine/base-model")
    text = refusal(adapter)
    assert "needs its base model /of/another/machine/base-model, which is not a folder here" in text
    assert "--adapter" in text
    configured(adapter, base_model_name_or_path="some-org/some-base")
    text = refusal(adapter)
    assert f"The adapter {adapter} needs its base model: some-org/some-base is not in the local cache and the hub" in text


@pytest.mark.parametrize("base", [None, "", 7, "absent"])
def test_an_adapter_that_names_no_base_says_so(adapter, base):
    configured(adapter, base_model_name_or_path=base)
    assert "does not name its base model" in refusal(adapter)


def test_a_base_is_found_beside_its_adapter_whatever_the_working_directory(qwen, adapter, tmp_path, monkeypatch):
    shutil.copytree(qwen.base, tmp_path / "bases" / "near")
    configured(adapter, base_model_name_or_path="../../bases/near")
    monkeypatch.chdir(adapter)
    names = {load_model(name, device="cpu").name for name in (".", str(adapter))}
    assert names == {"bases/near+run-a/checkpoint-500"}


def test_a_base_of_another_machines_hub_cache_is_the_hubs(adapter):
    configured(adapter, base_model_name_or_path=f"/home/a/hub/models--some-org--some-base/snapshots/{COMMIT}")
    assert display_name(str(adapter)) == "some-org/some-base+run-a/checkpoint-500"
    assert "some-org/some-base is not in the local cache" in refusal(adapter)


def hub_repository(cache, folder, name):
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "blobs").mkdir(parents=True)
    place = repository / "snapshots" / COMMIT
    place.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        if path.is_file():
            shutil.copyfile(path, repository / "blobs" / str(number))
            (place / path.name).symlink_to(repository / "blobs" / str(number))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return place


def test_an_adapter_on_the_hub_is_loaded_on_its_base(qwen, adapter, both, tmp_path, monkeypatch):
    """The hub's cache folder stands in for the hub: that is what is read without a network."""
    cache = tmp_path / "cache"
    configured(adapter, base_model_name_or_path="some-org/some-base")
    hub_repository(cache, qwen.base, "some-org/some-base")
    hub_repository(cache, adapter, "some-org/some-adapter")
    place = hub_repository(cache, both, "some-org/both")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    named = load_model("some-org/some-adapter", device="cpu")
    assert named.name == "some-org/some-base+some-org/some-adapter" == display_name("some-org/some-adapter")
    assert named.fingerprint["weights"] == f"some-org/some-base@{COMMIT}"
    assert named.fingerprint["adapter"] == f"some-org/some-adapter@{COMMIT}"
    assert_equal_rows(named, qwen.merged)
    given = load_model("some-org/some-base", adapter="some-org/some-adapter", device="cpu")
    assert given.fingerprint == named.fingerprint
    whole, by_path = load_model("some-org/both", device="cpu"), load_model(str(place), device="cpu")
    assert whole.name == by_path.name == "some-org/both+adapter"
    assert whole.fingerprint == by_path.fingerprint
    assert_equal_rows(whole, qwen.merged)


def test_adapters_that_are_not_there():
    assert refusal("lad-tiny", adapter="./nothing") == "There is no adapter folder ./nothing."
    assert "There is no adapter some-org/no-adapter" in refusal("lad-tiny", adapter="some-org/no-adapter")
    assert "--adapter is not for vlmeval:X" in refusal("vlmeval:X", adapter="some-org/some-adapter")


def test_a_folder_that_is_no_adapter_is_not_taken_for_one(qwen, adapter):
    assert f"{qwen.base} is not a PEFT adapter: it has no adapter_config.json." in refusal("lad-tiny", adapter=str(qwen.base))
    assert "; its subfolder checkpoint-500 holds one." in refusal("lad-tiny", adapter=str(adapter.parent))
    assert "holds an adapter already" in refusal(adapter, adapter=str(qwen.adapter))


def test_adapter_weights_without_a_configuration_are_not_left_out(both):
    (both / "adapter_config.json").unlink()
    assert "holds adapter_model.safetensors without its adapter_config.json" in refusal(both)


@pytest.mark.parametrize("place", ["adapter", "both"])
def test_a_configuration_without_weights_is_not_left_out(place, request):
    folder = request.getfixturevalue(place)
    (folder / "adapter_model.safetensors").unlink()
    assert "has adapter_config.json but no adapter_model.safetensors" in refusal(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("place", ["adapter", "both"])
def test_a_git_lfs_pointer_is_named(place, name, request):
    folder = request.getfixturevalue(place)
    (folder / name).write_text(POINTER)
    assert refusal(folder) == f"{folder / name} is a Git LFS pointer, not the file itself; run `git lfs pull` in {folder}."


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000])
def test_a_damaged_configuration_is_named(both, text):
    (both / "adapter_config.json").write_text(text)
    assert "adapter_config.json is not a JSON object" in refusal(both)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"target_modules": ["no_such_module"]}, "no_such_module"),
        ({"target_modules": ["q_proj"]}, "of its 18 tensors are unknown there"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj", "k_proj"]}, "of the tensors that its configuration names are missing"),
        ({"r": 8}, "size mismatch"),
        ({"modules_to_save": ["lm_head"]}, "is incomplete: its weights lack 'base_model.model.lm_head.weight'"),
        ({"peft_type": "NO_SUCH_TYPE"}, "NO_SUCH_TYPE"),
        ({"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}, "cannot be merged"),
        ({"megatron_config": {"a": 1}, "megatron_core": "this"}, "needs Megatron's modules"),
    ],
)
def test_an_adapter_that_does_not_fit_is_one_line(adapter, changes, part):
    configured(adapter, **changes)
    text = refusal(adapter)
    assert part in text
    assert "adapter" in text.lower()


def test_an_adapter_of_another_number_of_layers_is_refused(qwen, adapter):
    from safetensors.torch import load_file, save_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    extra = {name.replace("layers.0", "layers.7"): tensor.clone() for name, tensor in tensors.items() if "layers.0" in name}
    save_file({**tensors, **extra}, adapter / "adapter_model.safetensors")
    assert "are unknown there" in refusal(adapter)
    save_file({n: t for n, t in tensors.items() if "layers.0" not in n}, adapter / "adapter_model.safetensors")
    assert "is incomplete" in refusal(adapter)


def test_damaged_weights_are_one_line(adapter):
    content = (adapter / "adapter_model.safetensors").read_bytes()
    (adapter / "adapter_model.safetensors").write_bytes(content[: len(content) // 2])
    assert str(adapter) in refusal(adapter)


def test_weights_that_are_not_finite_are_refused(adapter):
    from safetensors.torch import load_file, save_file

    tensors = load_file(adapter / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, adapter / "adapter_model.safetensors")
    assert "NaN" in refusal(adapter)


KINDS = {
    "dora": lambda: peft.LoraConfig(r=4, use_dora=True, target_modules=["q_proj", "up_proj"]),
    "loha": lambda: peft.LoHaConfig(r=4, target_modules=["q_proj", "v_proj"]),
    "ia3": lambda: peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "whole-module": lambda: peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "vision": lambda: peft.LoraConfig(r=4, target_modules="all-linear"),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_other_kinds_of_adapters(kind, tmp_path):
    made = Made("qwen2.5-vl", tmp_path, KINDS[kind]())
    assert_equal_rows(load_model(str(made.adapter), device="cpu"), made.merged)


def test_an_adapter_on_weights_that_the_base_shares_is_refused(tmp_path):
    model, processor = load_random("qwen2.5-vl", seed=1)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "base")
    adapt(model, peft.LoraConfig(r=4, target_modules=["lm_head"])).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UnsupportedModelError, match=r"changes lm_head, whose weights the base shares with another module"):
        load_model(str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), device="cpu")


def test_an_adapter_for_an_adapter_is_refused(both, adapter):
    configured(adapter, base_model_name_or_path=str(both))
    assert "which holds an adapter itself" in refusal(adapter)
