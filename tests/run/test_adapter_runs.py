"""Runs of a model with an adapter: named in every table, with the attention of its training; broken folders are one line."""

import json
import shutil

import pytest

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.cli.main import invoke
from tests.models.adapter_files import save_noise_adapter

BASE = "random:qwen2.5-vl"
NAME = "random:qwen2.5-vl+adapters/noise"
NOTE = f"The adapter of {NAME} was trained under capl(rho=0.9, weight=0.5, every=2)."
WARNING = f"{NAME} was trained under capl(rho=0.9, weight=0.5, every=2), and no method runs it under that; add one to --methods."


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "adapters" / "noise"
    return save_noise_adapter(folder, BASE, Capl(rho=0.9).facts)


def words(model, out, methods="vanilla"):
    return ["run", "--model", *model, "--tasks", "scenes_random_n2", "--limit", "2", "--methods", methods, "--runs", str(out)]


def plain(text):
    return " ".join(text.split())


def test_tables_name_the_adapter_and_the_attention_of_its_training(adapter, tmp_path, capsys):
    out = tmp_path / "runs"
    assert invoke(words([BASE, "--adapter", str(adapter)], out)) == 0
    shown = capsys.readouterr()
    assert plain(shown.err).count(WARNING) == 1
    assert NAME in shown.out
    assert NOTE in plain(shown.out)
    # The adapter's folder as the model is the same run.
    assert invoke(words([str(adapter)], out, "vanilla,capl(rho=0.9)")) == 0
    shown = capsys.readouterr()
    assert "was trained under capl(rho=0.9, weight=0.5, every=2), and no method" not in plain(shown.err)
    assert NOTE in plain(shown.out)
    (metrics,) = out.rglob("metrics.json")
    assert json.loads(metrics.read_text())["notes"] == [NOTE]
    assert invoke(["leaderboard", "--runs", str(out)]) == 0
    assert NOTE in plain(capsys.readouterr().out)
    assert invoke(["report", "--runs", str(out), "--out", str(tmp_path / "report.html")]) == 0
    assert NOTE in (tmp_path / "report.html").read_text()


def test_a_model_without_an_adapter_has_no_such_note(tmp_path):
    assert invoke(words([BASE], tmp_path)) == 0
    (metrics,) = tmp_path.rglob("metrics.json")
    assert json.loads(metrics.read_text())["notes"] == []


def without_configuration(folder):
    (folder / "adapter_config.json").unlink()


def without_weights(folder):
    (folder / "adapter_model.safetensors").unlink()


def with_cut_weights(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def with_damaged_training(folder):
    (folder / "training.json").write_text("{")


def with_unnamed_attention(folder):
    (folder / "training.json").write_text('{"attention": {"rho": 0.9}}')


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (shutil.rmtree, "There is no adapter folder "),
        (without_configuration, "is not a PEFT adapter: it has no adapter_config.json."),
        (without_weights, "has adapter_config.json but no adapter_model.safetensors: copy the adapter's weights there"),
        (with_cut_weights, "cannot be loaded: "),
        (with_damaged_training, "training.json"),
        (with_unnamed_attention, "does not name the attention that the adapter was trained under; copy it again"),
    ],
)
def test_a_broken_adapter_is_one_line(adapter, damage, fault, tmp_path, capsys):
    folder = shutil.copytree(adapter, tmp_path / "broken")
    damage(folder)
    assert invoke(words([BASE, "--adapter", str(folder)], tmp_path / "runs")) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert fault in errors[0]
    assert not list(tmp_path.rglob("evidence*"))
