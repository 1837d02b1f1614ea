"""What VLMEvalKit goes on from, and when it must not; --config files; damaged files."""

import json
import shutil
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from lad_eval.cli.main import invoke
from lad_eval.errors import UserError
from lad_eval.methods import LAD
from tests.plugins.vlmevalkit_runs import FEW, predictions

# Not imported here: it would switch gradients off for every test of the process.
pytestmark = pytest.mark.skipif(find_spec("vlmeval") is None, reason="VLMEvalKit is an extra")


def test_an_edited_task_is_asked_again(kit, place):
    task = place / "edited.yaml"
    words = ["vlmeval", "--data", "edited.yaml", "--model", "lad-tiny+PriDe", "--work-dir", "W-edited"]
    seen = []
    for samples in (2, 3):
        task.write_text(FEW.format(n=4).replace("{samples: 2}", f"{{samples: {samples}}}"))
        assert invoke(words) == 0
        seen.append(set(pd.read_excel("W-edited/lad-tiny+PriDe/lad-tiny+PriDe_Edited.xlsx")["index"]))
    assert len(seen[0]) == len(seen[1]) == 8
    assert not seen[0] & seen[1]


def test_a_rerun_asks_nothing_and_scores_again(done, capsys):
    score = done / "lad-tiny+LAD" / "lad-tiny+LAD_Scenes_Few_acc.csv"
    before = score.read_text()
    score.unlink()
    assert invoke(["vlmeval", "--data", "scenes_few.yaml", "--model", "lad-tiny+LAD", "--work-dir", "W"]) == 0
    assert score.read_text() == before


def test_predictions_of_another_task_or_none_are_refused(kit, tmp_path):
    from lad_eval.plugins.vlmevalkit.datasets import LADDataset

    dataset = LADDataset("Scenes_Few")
    for content, fault in (
        (pd.DataFrame({"index": ["q0"], "prediction": ["1"]}), "answers other questions"),
        (pd.DataFrame({"index": dataset.data["index"][:1], "prediction": ["1"]}), "No sample was run in all 2 orders"),
        (pd.DataFrame({"other": [1]}), "Cannot read the predictions"),
    ):
        path = tmp_path / "lad-tiny_Scenes_Few.xlsx"
        content.to_excel(path)
        with pytest.raises(UserError, match=fault):
            dataset.evaluate(str(path))
    with pytest.raises(UserError, match="Cannot read the predictions"):
        dataset.evaluate(str(tmp_path / "none.xlsx"))


def test_a_config_file_and_world_size(kit, done, monkeypatch):
    """A shortcut, `{}`, is built by code of VLMEvalKit that hides WORLD_SIZE and forgets it; a class is found by name."""
    models = {"lad-tiny+PriDe": {}, "mine": {"class": "LADModel", "model": "lad-tiny+LAD", "name": "mine", "batch_size": 2}}
    data = {"Scenes_Few": {"class": "LADDataset", "dataset": "Scenes_Few"}}
    Path("config.json").write_text(json.dumps({"model": models, "data": data}))
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert invoke(["vlmeval", "--config", "config.json", "--work-dir", "W-config"]) == 0
    assert predictions(Path("W-config"), "mine") == predictions(done, "lad-tiny+LAD")
    assert predictions(Path("W-config"), "lad-tiny+PriDe") == predictions(done, "lad-tiny+PriDe")
    assert Path("W-config/mine/mine_Scenes_Few_evidence.parquet").is_file()


@pytest.fixture(scope="module")
def configured(kit):
    """Writes a --config file, and runs it in a work folder that holds answers of lad-tiny by LAD under the name `mine`."""

    def run(model, data=None):
        few = {"Scenes_Few": {"class": "LADDataset", "dataset": "scenes_few.yaml"}}
        Path("mine.json").write_text(json.dumps({"model": model, "data": few if data is None else data}))
        return invoke(["vlmeval", "--config", "mine.json", "--work-dir", "W-mine"])

    assert run({"mine": {"class": "LADModel", "model": "lad-tiny+LAD", "name": "mine"}}) == 0
    return run


@pytest.mark.parametrize(
    ("made", "whose"),
    [
        ({"model": "lad-tiny+vanilla"}, "lad-tiny+lad"),
        ({"model": "lad-tiny+LAD,top_k=7"}, "lad-tiny+lad with other parameters"),
        ({"model": "lad-tiny+LAD", "image_preparation": "native"}, "lad-tiny with other settings"),
    ],
)
def test_a_config_key_that_means_something_else_now_is_refused(configured, made, whose, capsys):
    assert configured({"mine": {"class": "LADModel", "name": "mine", **made}}) == 2
    assert f"W-mine/mine holds answers to Scenes_Few of {whose}; choose another" in capsys.readouterr().err.splitlines()[-1]


def test_a_config_key_with_another_batch_size_goes_on(configured):
    assert configured({"mine": {"class": "LADModel", "model": "lad-tiny+LAD", "name": "mine", "batch_size": 3}}) == 0


@pytest.mark.parametrize(
    ("model", "data", "fault"),
    [
        ({"other": {"class": "LADModel", "model": "lad-tiny"}}, None, """add "name": "other" to 'other'"""),
        ({"other": {"class": "LADModel", "name": "other"}}, None, "Unknown model ''"),
        ({"a/b": {"class": "LADModel", "model": "lad-tiny", "name": "a/b"}}, None, "'a/b' names files, and has a slash"),
        ({"lad-tinny": {}}, None, "Unknown model 'lad-tinny'. Did you mean"),
        ({"lad-tiny": {}}, {"X": {"class": "LADDataset", "dataset": "Scenes_Fw"}}, "Did you mean 'Scenes_Few'"),
        ({"lad-tiny": {}}, {"X": {"class": "LADDataset", "dataset": "scenes_few.yaml"}}, 'write "Scenes_Few": {"class": '),
        ({"lad-tiny": {}}, {"Scenes_Few": {}}, 'write "Scenes_Few": {"class": "LADDataset"'),
        ({"lad-tiny": {}}, {"X": 1}, "must hold the objects 'model' and 'data'"),
    ],
)
def test_faults_of_a_config_file_end_before_anything_runs(configured, model, data, fault, capsys):
    assert configured(model, data) == 2
    assert fault in capsys.readouterr().err.splitlines()[-1]


def noted(name, folder, model, settings, monkeypatch):
    """A work folder with answers by LAD, and the note of what made them."""
    from lad_eval.plugins.vlmevalkit.scores import Pointer, write_pointer

    monkeypatch.setattr(sys, "argv", ["run", "--work-dir", folder])
    write_pointer(name, "Scenes_Few", Pointer(model, "lad", LAD().get_params(), settings, "nowhere", None))
    (Path(folder) / name).mkdir(parents=True)
    (Path(folder) / name / f"{name}_Scenes_Few.xlsx").write_text("")


def test_answers_under_other_settings_of_an_entry_are_not_taken_for_these(kit, monkeypatch, capsys):
    import vlmeval.config

    from lad_eval.plugins.vlmevalkit.entries import entry_settings

    words = ["--data", "scenes_few.yaml", "--model", "SmolVLM+LAD", "--work-dir", "W-settings"]
    noted("SmolVLM+LAD", "W-settings", "SmolVLM", entry_settings("SmolVLM"), monkeypatch)
    table = vlmeval.config.supported_VLM
    monkeypatch.setitem(table, "SmolVLM", partial(table["SmolVLM"].func, model_path="elsewhere"))
    assert invoke(["vlmeval", *words]) == 2
    assert "holds answers to Scenes_Few of SmolVLM with other settings" in capsys.readouterr().err


def test_answers_of_other_weights_of_a_hub_model_are_not_taken_for_these(kit, monkeypatch, capsys, tmp_path):
    import huggingface_hub

    noted("HF--org--name+LAD", "W-hub", "HF:org/name", {"weights": "org/name@old"}, monkeypatch)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(tmp_path / "new" / "config.json"))
    words = ["--data", "scenes_few.yaml", "--model", "HF:org/name+LAD", "--work-dir", "W-hub"]
    assert invoke(["vlmeval", *words]) == 2
    assert "holds answers to Scenes_Few of HF:org/name with other weights" in capsys.readouterr().err


def test_answers_that_were_not_made_alike_are_refused(done, kit, monkeypatch, tmp_path):
    from lad_eval.plugins.vlmevalkit.datasets import LADDataset

    monkeypatch.setattr(sys, "argv", ["run", "--work-dir", "W"])
    (stored,) = (done / "lad_eval" / "lad-tiny").rglob("evidence.jsonl")
    content = stored.read_text()
    stored.write_text("\n".join(content.splitlines()[:5]) + "\n")
    try:
        with pytest.raises(UserError, match="were not made as the others were"):
            LADDataset("Scenes_Few").evaluate(str(done / "lad-tiny+LAD" / "lad-tiny+LAD_Scenes_Few.xlsx"))
    finally:
        stored.write_text(content)


def test_files_that_a_kill_has_cut_off(kit, capsys):
    words = ["vlmeval", "--data", "scenes_few.yaml", "--model", "lad-tiny+LAD", "--work-dir", "W-cut"]
    assert invoke(words) == 0
    folder = Path("W-cut/lad-tiny+LAD")
    table = folder / "lad-tiny+LAD_Scenes_Few.xlsx"
    content, before = table.read_bytes(), predictions(Path("W-cut"), "lad-tiny+LAD")
    table.write_bytes(content[: len(content) // 2])
    assert invoke(words) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"Cannot read the predictions in {table}" in line
    assert line.endswith("Remove it and run again.")
    table.unlink()
    (folder / "01_Scenes_Few.pkl").write_bytes(b"\x80\x04\x95")
    assert invoke(words) == 0
    assert "01_Scenes_Few.pkl is damaged and set aside" in capsys.readouterr().err
    assert predictions(Path("W-cut"), "lad-tiny+LAD") == before
    (state,) = Path("W-cut/lad_eval").rglob("*.safetensors")
    state.write_bytes(b"x")
    assert invoke(words) == 1
    assert f"{state.name} is damaged; remove it and" in capsys.readouterr().err.splitlines()[-1]
    shutil.rmtree("W-cut/lad_eval")
    assert invoke(words) == 0
    assert "without a record of how they were made" in capsys.readouterr().err


def test_a_work_folder_that_cannot_be_written_and_a_damaged_note(kit, done, capsys):
    Path("taken").write_text("")
    assert invoke(["vlmeval", "--data", "scenes_few.yaml", "--model", "lad-tiny", "--work-dir", "taken/W"]) == 2
    assert "Cannot write to the work folder taken/W; choose another --work-dir." in capsys.readouterr().err
    note = done / "lad_eval" / "answers" / "lad-tiny_Scenes_Few.json"
    content = note.read_text()
    note.write_text("{")
    assert invoke(["vlmeval", "--data", "scenes_few.yaml", "--model", "lad-tiny", "--work-dir", "W"]) == 2
    assert "lad-tiny_Scenes_Few.json is damaged; remove it and run again." in capsys.readouterr().err
    note.write_text(content)
