"""One model is one run, however it is named; an adapter is another model, and says so everywhere."""

import json
import logging
import shutil
import subprocess
import sys

import pytest

from lad_eval.errors import UserError
from lad_eval.evidence.files import EvidenceHeader, read_parquet, write_parquet
from lad_eval.models.tiny import folder as tiny_folder
from lad_eval.report.html.load import choose
from lad_eval.report.leaderboard import Filters, gather_board
from lad_eval.run import execute
from lad_eval.run.execute import run_tasks
from lad_eval.run.folder.files import read_run_json
from tests.run.conftest import Counted, settings

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")
HOW = {"tasks": ("scenes_random_n4",), "methods": ("vanilla",), "limit": 1, "seed": 0}
REQUESTS = 5


@pytest.fixture
def checkpoint(tmp_path):
    return shutil.copytree(tiny_folder(), tmp_path / "run-a" / "checkpoint-500")


@pytest.fixture
def asked(monkeypatch):
    """Runs the tasks on a model that is really loaded, and returns how many requests it was asked."""
    load = execute.load_model

    def run(out, model, **changes):
        made = []
        with monkeypatch.context() as patch:
            patch.setattr(execute, "load_model", lambda *args, **options: made.append(Counted(load(*args, **options))) or made[0])
            run_tasks(settings(out, model=str(model), **{**HOW, **changes}))
        return len(made[0].asked)

    return run


def names(out):
    return sorted({read_run_json(path)["model"] for path in out.rglob("metrics.json")})


def test_the_second_spelling_of_a_folder_asks_nothing(checkpoint, tmp_path, monkeypatch, asked):
    out, home = tmp_path / "runs", tmp_path / "home"
    home.mkdir()
    (home / "latest").symlink_to(checkpoint, target_is_directory=True)
    monkeypatch.setenv("HOME", str(home))
    assert asked(out, checkpoint) == REQUESTS
    monkeypatch.chdir(checkpoint)
    for name in (".", "../checkpoint-500/", home / "latest", "~/latest", f"{checkpoint}/"):
        assert asked(out, name) == 0, name
        assert [run.metrics["model"] for run in choose([out], str(name))] == ["run-a/checkpoint-500"]
        assert {line.model for line in gather_board(out, Filters(models=(str(name),))).lines} == {
            "run-a/checkpoint-500 (first 1)"
        }
    assert [path.name for path in out.iterdir()] == ["run-a-checkpoint-500"]
    assert len(list(out.rglob("spec.json"))) == 1


def test_a_checkpoint_that_is_trained_on_is_the_same_model(checkpoint, tmp_path, asked):
    assert asked(tmp_path / "runs", checkpoint) == REQUESTS
    for name in ("trainer_state.json", "training_args.bin", "optimizer.pt", "README.md"):
        (checkpoint / name).write_text("something")
    assert asked(tmp_path / "runs", checkpoint) == 0


def test_checkpoints_of_two_runs_are_two_models(checkpoint, tmp_path, asked):
    from safetensors.torch import load_file, save_file

    other = shutil.copytree(checkpoint, tmp_path / "run-b" / "checkpoint-500")
    tensors = load_file(other / "model.safetensors")
    tensors[next(name for name in tensors if "layers.0" in name and tensors[name].dim() == 2)].mul_(1.5)
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert asked(tmp_path / "runs", checkpoint) == asked(tmp_path / "runs", other) == REQUESTS
    assert names(tmp_path / "runs") == ["run-a/checkpoint-500", "run-b/checkpoint-500"]
    assert [run.metrics["model"] for run in choose([tmp_path / "runs"], str(other))] == ["run-b/checkpoint-500"]


def test_a_moved_folder_has_a_new_name_and_asks_nothing(checkpoint, tmp_path, asked):
    assert asked(tmp_path / "runs", checkpoint) == REQUESTS
    moved = shutil.move(checkpoint, tmp_path / "archive" / "checkpoint-500")
    assert asked(tmp_path / "runs", moved) == 0
    assert names(tmp_path / "runs") == ["archive/checkpoint-500", "run-a/checkpoint-500"]


def older(out, **changes):
    """Makes the only run one of a version that named a folder by its last part alone."""
    place = out / "run-a-checkpoint-500"
    for path in place.rglob("evidence.parquet"):
        evidence = read_parquet(path)
        fingerprint = {**evidence.fingerprint, **changes}
        header = EvidenceHeader(fingerprint, {}, evidence.n_candidates, evidence.n_layers)
        write_parquet(path, evidence, header)
    shutil.rmtree(out / "checkpoint-500", ignore_errors=True)
    place.rename(out / "checkpoint-500")


def test_runs_that_were_named_by_the_last_part_alone_are_found(checkpoint, tmp_path, asked):
    assert asked(tmp_path / "runs", checkpoint) == REQUESTS
    older(tmp_path / "runs")
    assert asked(tmp_path / "runs", checkpoint) == 0


def test_where_stored_answers_do_not_serve_a_line_says_why(checkpoint, tmp_path, asked, caplog):
    assert asked(tmp_path / "runs", checkpoint) == REQUESTS
    older(tmp_path / "runs", weights="sha256:of everything in the folder")
    logging.getLogger("lad_eval").propagate = True
    with caplog.at_level(logging.INFO, "lad_eval"):
        assert asked(tmp_path / "runs", checkpoint) == REQUESTS
    (line,) = {record.getMessage() for record in caplog.records if "run again" in record.getMessage()}
    assert "checkpoint-500/scenes_random_n4" in line
    assert "weights is 'sha256:of everything in the folder' and 'sha256:" in line
    assert "\n" not in line


@pytest.fixture
def adapter(checkpoint, tmp_path):
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(checkpoint)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, lora_alpha=64, target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    adapted.save_pretrained(tmp_path / "lora" / "last")
    return tmp_path / "lora" / "last"


def test_an_adapter_is_a_model_of_its_own_in_every_place(checkpoint, adapter, tmp_path, asked):
    out, shown = tmp_path / "runs", "run-a/checkpoint-500+lora/last"
    assert asked(out, checkpoint) == REQUESTS
    assert asked(out, adapter) == REQUESTS
    assert asked(out, checkpoint, adapter=str(adapter)) == 0, "the same model, named in two parts"
    assert names(out) == ["run-a/checkpoint-500", shown]
    assert sorted(path.name for path in out.iterdir()) == ["run-a-checkpoint-500", "run-a-checkpoint-500-lora-last"]
    for name in (str(adapter), shown):
        assert [run.metrics["model"] for run in choose([out], name)] == [shown]
        assert {line.model for line in gather_board(out, Filters(models=(name,))).lines} == {f"{shown} (first 1)"}
    (spec,) = (read_run_json(path) for path in out.glob("*-last/*/*/spec.json"))
    assert spec["fingerprint"]["weights"] != spec["fingerprint"]["adapter"]
    assert "peft" in spec["fingerprint"]["versions"]


def test_a_folder_that_gets_an_adapter_is_another_model(checkpoint, adapter, tmp_path, asked):
    assert asked(tmp_path / "runs", checkpoint) == REQUESTS
    shutil.copytree(adapter, checkpoint, dirs_exist_ok=True)
    assert asked(tmp_path / "runs", checkpoint) == REQUESTS
    assert names(tmp_path / "runs") == ["run-a/checkpoint-500", "run-a/checkpoint-500+adapter"]


@pytest.mark.parametrize("barrier", [True, False])
def test_without_peft_the_command_ends_with_2_and_keeps_nothing(checkpoint, adapter, tmp_path, barrier):
    if barrier:
        shutil.copytree(adapter, checkpoint, dirs_exist_ok=True)
    model = checkpoint if barrier else adapter
    words = ["run", "--model", str(model), "--tasks", "scenes_random_n4", "--limit", "1", "--runs", str(tmp_path / "runs")]
    code = f"import sys; sys.modules['peft'] = None; from lad_eval.cli import main; sys.argv[1:] = {words!r}; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "peft is not installed: `" in done.stderr
    assert "[peft]" in done.stderr
    assert not list((tmp_path / "runs").rglob("*.json*"))


def test_a_git_lfs_pointer_ends_the_command_before_anything_is_loaded(checkpoint, tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (checkpoint / "model.safetensors").write_text(pointer)
    with pytest.raises(UserError, match="is a Git LFS pointer, not the file itself; run `git lfs pull` in"):
        run_tasks(settings(tmp_path / "runs", model=str(checkpoint), **HOW))


def test_the_spec_says_all_of_it_as_plain_json(checkpoint, adapter, tmp_path, asked):
    asked(tmp_path / "runs", adapter)
    (path,) = tmp_path.rglob("spec.json")
    assert str(tmp_path) not in json.dumps(read_run_json(path))
