"""A base with an adapter in its weights is a model folder of its own."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from lad_eval.attention.cross_image.capl import Capl
from lad_eval.cli.main import invoke
from lad_eval.errors import UserError
from lad_eval.models.registry import load_model
from lad_eval.training.dpo import TrainingOptions, train_adapter
from tests.training.examples import MODEL, TASK, examples

pytest.importorskip("trl")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    options = TrainingOptions(batch_size=1, pairs_at_once=1, learning_rate=0.05)
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    return train_adapter(
        load_model(MODEL), examples(4), folder, base=MODEL, made_from={}, attention=Capl(rho=0.5), options=options
    )


def test_a_merged_model_answers_as_base_and_adapter_and_knows_its_attention(tmp_path, adapter, capsys):
    words = ["capl", "merge", "-m", MODEL, "--adapter", str(adapter), "--out", str(tmp_path / "merged")]
    assert invoke([*words, "--quiet"]) == 0
    requests = [request for request, _ in examples(6)]
    adapted, merged = load_model(MODEL, adapter=str(adapter)), load_model(str(tmp_path / "merged"))
    first, second, base = (model.evidence(requests).log_probs for model in (adapted, merged, load_model(MODEL)))
    np.testing.assert_allclose(first, second, atol=1e-5)
    assert np.abs(first - base).max() > 1e-3
    assert merged.fingerprint["adapter_attention"] == Capl(rho=0.5).facts
    assert "adapter" not in merged.fingerprint
    capsys.readouterr()
    run = ["run", "-m", str(tmp_path / "merged"), "-t", TASK, "--limit", "2", "--runs", str(tmp_path / "runs")]
    assert invoke(run) == 0
    assert "was trained under capl(every=2, rho=0.5, weight=0.5), and no method runs it under that" in capsys.readouterr().err
    assert invoke([*words, "--quiet"]) == 2
    assert "holds something else, chat_template.jinja for one; choose another --out" in capsys.readouterr().err


def test_an_adapter_of_other_weights_is_merged_with_a_warning(tmp_path, adapter, caplog):
    folder = shutil.copytree(adapter, tmp_path / "adapter")
    trained = json.loads((folder / "training.json").read_text())
    for weights, warned in ((f"{MODEL} seed 1", True), (f"{MODEL} seed 0", False), ("sha256:0", False)):
        caplog.clear()
        document = {key: value for key, value in trained.items() if key != "checksum"}
        document["made_from"] = {"model": {"weights": weights}}
        (folder / "training.json").write_text(json.dumps(document))
        load_model(MODEL, adapter=str(folder))
        assert ("was trained on other weights than those of" in caplog.text) is warned


@pytest.mark.parametrize("note", [5, "capl", {"rho": 0.5}])
def test_a_damaged_note_of_the_attention_is_named(tmp_path, adapter, capsys, note):
    merged = tmp_path / "merged"
    assert invoke(["capl", "merge", "-m", MODEL, "--adapter", str(adapter), "--out", str(merged), "--quiet"]) == 0
    config = json.loads((merged / "config.json").read_text())
    (merged / "config.json").write_text(json.dumps({**config, "lad_eval_trained_under": note}))
    with pytest.raises(UserError, match=r"lad_eval_trained_under in config.json of .*merged does not name the attention"):
        load_model(str(merged))


def test_a_folder_that_cannot_be_replaced_is_refused_before_a_model_is_loaded(tmp_path, capsys, monkeypatch):
    words = ["capl", "merge", "-m", MODEL, "--adapter", "not-there", "--quiet", "--out"]
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / ".note").touch()
    assert invoke([*words, str(hidden)]) == 2
    assert "hidden holds something else, .note for one; choose another --out." in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert invoke([*words, "."]) == 2
    assert "is the working folder, which cannot be replaced; choose another --out." in capsys.readouterr().err


def test_help_names_the_extra(capsys):
    assert invoke(["capl", "merge", "--help"]) == 0
    assert "needs the extra peft" in " ".join(capsys.readouterr().out.replace("`", "").split())
