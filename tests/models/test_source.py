"""One model has one name, however its folder is spelt; what determines it is known by content."""

import json
import shutil
from pathlib import Path

import pytest

from lad_eval.errors import UserError
from lad_eval.files.checkpoints import model_files
from lad_eval.models.fingerprint import adapter_identity, folder_identity
from lad_eval.models.registry import load_model
from lad_eval.models.source import display_name, local_folder, snapshot_of, source_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 123456\n".format("0" * 64)


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "qwen"
    for part in tiny("qwen2.5-vl"):
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run-a" / "checkpoint-500")


def spellings(folder, home, monkeypatch):
    """Names of one folder: absolute, with a slash, relative, a link, a link to its parent, by ~, and `.` from within it."""
    monkeypatch.setenv("HOME", str(home))
    (home / "link").symlink_to(folder, target_is_directory=True)
    (home / "parent").symlink_to(folder.parent, target_is_directory=True)
    monkeypatch.chdir(folder)
    return [
        str(folder),
        f"{folder}/",
        ".",
        "./",
        f"../{folder.name}",
        str(home / "link"),
        str(home / "parent" / folder.name),
        "~/link",
        f"~/parent/{folder.name}/",
    ]


def test_every_spelling_of_a_folder_is_one_model(copied, tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    names = spellings(copied, tmp_path / "home", monkeypatch)
    assert {display_name(name) for name in names} == {"run-a/checkpoint-500"}
    assert {source_of(name).base for name in names} == {str(copied.resolve())}
    loaded = [load_model(name, device="cpu") for name in names]
    assert {model.name for model in loaded} == {"run-a/checkpoint-500"}
    assert len({json.dumps(model.fingerprint, sort_keys=True) for model in loaded}) == 1


def test_checkpoints_of_different_parents_are_told_apart(tmp_path):
    for parent in ("run-a", "run-b"):
        (tmp_path / parent / "checkpoint-500").mkdir(parents=True)
    names = [display_name(str(tmp_path / parent / "checkpoint-500")) for parent in ("run-a", "run-b")]
    assert names == ["run-a/checkpoint-500", "run-b/checkpoint-500"]


def test_names_that_are_no_folder_stay(tmp_path, monkeypatch):
    (tmp_path / "lad-tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in (
        "lad-tiny",
        "lad-tiny-relations",
        "random:qwen2.5-vl",
        "vlmeval:X",
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "run-a/checkpoint-500",
    ):
        assert display_name(name) == name
    assert local_folder("lad-tiny") is None, "the embedded model is meant, as when it is loaded"


def test_a_moved_folder_is_the_same_model_by_fingerprint(copied, tmp_path):
    moved = shutil.copytree(copied, tmp_path / "archive" / copied.name)
    first, second = load_model(str(copied), device="cpu"), load_model(str(moved), device="cpu")
    assert first.fingerprint == second.fingerprint
    assert (first.name, second.name) == ("run-a/checkpoint-500", "archive/checkpoint-500")


def snapshot(folder, cache):
    """The folder as the hub's cache keeps a repository: content in blobs/, links in snapshots/<commit>/."""
    repository = cache / "models--some-org--some-model"
    (repository / "blobs").mkdir(parents=True)
    place = repository / "snapshots" / COMMIT
    place.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copyfile(path, repository / "blobs" / str(number))
        (place / path.name).symlink_to(Path("..", "..", "blobs", str(number)))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return place


def test_a_snapshot_of_the_hub_is_the_hubs_model(saved, tmp_path, monkeypatch):
    place = snapshot(saved, tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    by_path, by_id = load_model(str(place), device="cpu"), load_model("some-org/some-model", device="cpu")
    assert by_path.name == by_id.name == "some-org/some-model"
    assert by_path.fingerprint == by_id.fingerprint
    assert by_path.fingerprint["weights"] == f"some-org/some-model@{COMMIT}"


def test_a_snapshot_that_was_changed_by_hand_is_not_the_hubs(saved, tmp_path):
    place = snapshot(saved, tmp_path)
    before = folder_identity(place)
    text = (place / "config.json").read_text()
    (place / "config.json").unlink()
    (place / "config.json").write_text(text + " ")
    assert before == f"some-org/some-model@{COMMIT}"
    assert folder_identity(place).startswith(f"{before} sha256:")


def test_links_count_by_content(saved, tmp_path):
    links = tmp_path / "links"
    links.mkdir()
    for file in saved.iterdir():
        (links / file.name).symlink_to(file)
    assert folder_identity(links) == folder_identity(saved)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/c/models--org--na--me/snapshots/{COMMIT}", "org/na--me"),
        (f"/c/models--gpt/snapshots/{COMMIT}", "gpt"),
        (f"/c/models--org--name/snapshots/{COMMIT}/sub/part", "org/name/sub/part"),
        ("/c/models--org--name/snapshots/main", None),
        (f"/c/snapshots/{COMMIT}", None),
    ],
)
def test_the_hubs_cache_is_known_by_its_layout(tmp_path, path, name):
    found = snapshot_of(tmp_path / path.lstrip("/"))
    assert (found and found.name) == name


LEFT_BY_TRAINING = (
    "trainer_state.json", "training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state.pth",
    "rng_state_0.pth", "README.md", "all_results.json", "train_results.json", "eval_results.json", "training.json", "log.txt",
    "requirements.txt", "train.py", "pytorch_model.bin", "consolidated.safetensors", ".git/config", ".git/objects/a.json",
    ".gitattributes", "checkpoint-100/model.safetensors", "checkpoint-100/config.json", "checkpoint-100/tokenizer_config.json",
    "checkpoint-100/tokenizer.json", "lora/adapter_config.json", "lora/tokenizer_config.json", "global_step500/states.bin",
    "runs/events.json", "latest",
)  # fmt: skip


def test_what_training_leaves_in_the_folder_does_not_count(copied):
    before = folder_identity(copied)
    for name in LEFT_BY_TRAINING:
        (copied / name).parent.mkdir(exist_ok=True, parents=True)
        (copied / name).write_text("something")
        assert folder_identity(copied) == before, name


@pytest.mark.parametrize(
    "name",
    [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model",
        "spiece.model", "qwen.tiktoken", "tekken.json", "preprocessor_config.json", "processor_config.json",
        "video_preprocessor_config.json",
        "chat_template.jinja", "chat_template.json", "additional_chat_templates/tools.jinja", "qformer_tokenizer/tokenizer.json",
    ],
)  # fmt: skip
def test_what_determines_the_model_counts(copied, name):
    (copied / "qformer_tokenizer").mkdir()
    (copied / "qformer_tokenizer" / "tokenizer_config.json").write_text("{}")
    before = folder_identity(copied)
    path = copied / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b" ")
    assert folder_identity(copied) != before


def test_code_counts_where_it_is_run(copied):
    (copied / "modeling.py").write_text("a = 1\n")
    before, trusted = folder_identity(copied), folder_identity(copied, code=True)
    (copied / "modeling.py").write_text("a = 2\n")
    assert folder_identity(copied) == before
    assert folder_identity(copied, code=True) != trusted


def test_of_shards_those_that_the_index_names_count(copied):
    (copied / "model.safetensors").rename(copied / "model-00001-of-00002.safetensors")
    (copied / "model-00002-of-00002.safetensors").write_bytes(b"second")
    (copied / "model-00009-of-00009.safetensors").write_bytes(b"left over")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index))
    names = {path.name for path in model_files(copied)}
    assert {*index["weight_map"].values(), "model.safetensors.index.json"} <= names
    assert "model-00009-of-00009.safetensors" not in names
    (copied / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002.safetensors is missing, a part of the weights"):
        load_model(str(copied), device="cpu")


def test_pickles_count_where_there_is_nothing_else(copied):
    (copied / "pytorch_model.bin").write_bytes(b"weights")
    assert copied / "pytorch_model.bin" not in model_files(copied)
    (copied / "model.safetensors").unlink()
    assert copied / "pytorch_model.bin" in model_files(copied)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "config.json", "processor_config.json", "chat_template.jinja"]
)
def test_a_git_lfs_pointer_is_named(copied, name):
    (copied / name).write_text(POINTER)
    with pytest.raises(UserError) as caught:
        load_model(str(copied), device="cpu")
    assert str(caught.value) == (f"{copied / name} is a Git LFS pointer, not the file itself; run `git lfs pull` in {copied}.")


def test_a_shard_or_an_index_that_is_a_git_lfs_pointer_is_named(copied):
    (copied / "model.safetensors").unlink()
    index, shard = copied / "model.safetensors.index.json", copied / "model-00001-of-00001.safetensors"
    index.write_text(json.dumps({"weight_map": {"a": shard.name}}))
    shard.write_text(POINTER)
    with pytest.raises(UserError, match=r"model-00001-of-00001.safetensors is a Git LFS pointer"):
        load_model(str(copied), device="cpu")
    index.write_text(POINTER)
    with pytest.raises(UserError, match=r"model.safetensors.index.json is a Git LFS pointer"):
        load_model(str(copied), device="cpu")


def test_a_pointer_that_is_not_read_does_no_harm(copied):
    (copied / "optimizer.pt").write_text(POINTER)
    (copied / "trainer_state.json").write_text(POINTER)
    load_model(str(copied), device="cpu")


def test_an_adapter_is_known_by_its_files_alone(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"a")
    before = adapter_identity(tmp_path)
    for name in ("trainer_state.json", "README.md", "optimizer.pt", "training_args.bin", "adapter_model.bin"):
        (tmp_path / name).write_text("something")
    assert adapter_identity(tmp_path) == before
    (tmp_path / "adapter_model.safetensors").write_bytes(b"b")
    assert adapter_identity(tmp_path) != before
