"""The tasks and methods inside the real VLMEvalKit, through its own main loop."""

import inspect
import json
import os
import shutil
import ssl
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from lad_eval.cli.main import invoke
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.evidence_files import read_parquet
from lad_eval.methods import LAD

pytest.importorskip("vlmeval", reason="VLMEvalKit is an extra")

FEW = "source: scenes\nsetting: random\ncandidates: {n}\nsamples: 4\npermutations: {{count: 2}}\ncalibration: {{samples: 2}}\n"
VERIFIED = ssl._create_default_https_context


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """A working directory with a small task, and VLMEvalKit's data folder."""
    folder = tmp_path_factory.mktemp("kit")
    (folder / "lmu").mkdir()  # VLMEvalKit takes the home folder where this is missing
    (folder / "scenes_few.yaml").write_text(FEW.format(n=4))
    (folder / "scenes_two.yaml").write_text(FEW.format(n=2))
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMUData", str(folder / "lmu"))
        patch.delenv("PRED_FORMAT", raising=False)
        os.chdir(folder)
        yield folder
        os.chdir(before)


@pytest.fixture(scope="module")
def kit(place):
    """VLMEvalKit, with our tasks and models in it."""
    from lad_eval.plugins.vlmevalkit import register

    assert register("scenes_few.yaml", "scenes_two.yaml") == ["Scenes_Few", "Scenes_Two"]

    return sys.modules["vlmeval"]


@pytest.fixture(scope="module")
def done(kit):
    """The work folder after three models on the small task."""
    words = ["--data", "scenes_few.yaml", "--model", "lad-tiny+LAD", "lad-tiny+PriDe", "lad-tiny", "--work-dir", "W"]
    before = list(sys.argv)
    assert invoke(["vlmeval", *words]) == 0
    assert sys.argv == before
    return Path("W")


def predictions(folder, model, data="Scenes_Few", form="xlsx"):
    path = folder / model / f"{model}_{data}.{form}"
    table = {"xlsx": pd.read_excel, "json": pd.read_json, "tsv": partial(pd.read_csv, sep="\t")}[form](path)
    return {(row.g_index, row.perm_id): str(row.prediction) for row in table.itertuples()}


def own_run(model, task, out, *options):
    """The same through `lad-eval run`: method -> answers."""
    words = [
        "--model",
        model,
        "--tasks",
        task,
        "--methods",
        "vanilla,pride,lad,permutation-average",
        "--out",
        out,
        "--quiet",
        *options,
    ]
    assert invoke(["run", *words]) == 0
    (path,) = Path(out).rglob("predictions.parquet")
    tables = pd.read_parquet(path).groupby("method")
    return {name: {(row.sample_id, row.permutation): str(row.position + 1) for row in rows.itertuples()} for name, rows in tables}


def test_results_lie_where_vlmevalkit_puts_them(done):
    for model in ("lad-tiny+LAD", "lad-tiny+PriDe", "lad-tiny"):
        stem = f"{model}_Scenes_Few"
        table = pd.read_csv(done / model / f"{stem}_acc.csv")
        recall = [f"Recall@{position}" for position in range(1, 5)]
        named = {"Overall", "Accuracy std", "RStd", "Consistency", "Unparsable", "Samples", "Orders"}
        assert named < set(table) <= {*named, *recall}
        (row,) = table.to_dict("records")
        assert (row["Samples"], row["Orders"], row["Unparsable"]) == (4, 2, 0)
        status = json.loads((done / model / "status.json").read_text())["datasets"]["Scenes_Few"]
        assert status["status"] == "done"
        assert status["primary_metric"] == "Overall"
        assert status["metrics"]["Overall"] == pytest.approx(row["Overall"])
        assert not status.get("judge_model")
        assert len(read_parquet(done / model / f"{stem}_evidence.parquet")) == 8
        told = json.loads((done / model / f"{stem}_lad_eval.json").read_text())
        assert told["model"] == "lad-tiny"
        assert told["fingerprint"]["architecture"]


def test_the_calibration_is_stored_and_the_model_looked_once(done):
    state = done / "lad-tiny+LAD" / "lad-tiny+LAD_Scenes_Few_calibration.safetensors"
    assert LAD.load(state).is_calibrated
    (stored,) = (done / "lad_eval" / "lad-tiny").rglob("evidence.jsonl")
    assert len(stored.read_text().splitlines()) == 1 + 4 * 2 + 2 * 4


def test_answers_are_those_of_lad_eval_run(done):
    own = own_run("lad-tiny", "scenes_few.yaml", "own-tiny")
    for method, model in (("lad", "lad-tiny+LAD"), ("pride", "lad-tiny+PriDe"), ("vanilla", "lad-tiny")):
        assert predictions(done, model) == own[method]


@pytest.mark.parametrize("family", ["qwen2.5-vl", "llava-onevision"])
def test_answers_of_a_folder_are_those_of_lad_eval_run(kit, family):
    from lad_eval.models.random import load_random

    for part in load_random(family, seed=3):
        part.save_pretrained(family)
    models = [f"HF:{family}+LAD", f"HF:{family}+PriDe", f"HF:{family}", f"HF:{family}+permutation-average"]
    assert invoke(["vlmeval", "--data", "scenes_two.yaml", "--model", *models, "--work-dir", f"W-{family}"]) == 0
    own = own_run(family, "scenes_two.yaml", f"own-{family}")
    shorts = {path.name.partition("+")[2]: path.name for path in Path(f"W-{family}").glob("HF--*")}
    for method, suffix in (("lad", "LAD"), ("pride", "PriDe"), ("vanilla", ""), ("permutation-average",) * 2):
        assert predictions(Path(f"W-{family}"), shorts[suffix], "Scenes_Two") == own[method]


@pytest.mark.parametrize(("family", "kind"), [("smolvlm", "SmolVLM"), ("qwen2-vl", "Qwen2VLChat")])
def test_a_model_of_vlmevalkit_behind_a_method(kit, family, kind, monkeypatch, capsys):
    import vlmeval.config
    import vlmeval.vlm

    from tests.models.vlmeval_classes import on_the_cpu, save

    folder = save(family, f"kit-{family}")
    table = vlmeval.config.supported_VLM
    monkeypatch.setitem(table, "Tiny", partial(getattr(vlmeval.vlm, kind), model_path=folder, max_new_tokens=4))
    words = ["--data", "scenes_two.yaml", "--model", "Tiny+LAD", "Tiny+vanilla", "Tiny", "--work-dir", f"W-{kind}"]
    with on_the_cpu():
        assert invoke(["vlmeval", *words]) == 0
        own = own_run("vlmeval:Tiny", "scenes_two.yaml", f"own-{kind}", "--image-preparation", "native")
    for method, model in (("lad", "Tiny+LAD"), ("vanilla", "Tiny+vanilla")):
        assert predictions(Path(f"W-{kind}"), model, "Scenes_Two") == own[method]
    os.utime(Path(folder, "config.json"), (0, 0))
    with on_the_cpu():
        assert invoke(["vlmeval", *words]) == 2
    assert "of Tiny with other weights; choose another --work-dir" in capsys.readouterr().err
    replies = pd.read_csv(f"W-{kind}/Tiny/Tiny_Scenes_Two_acc.csv")
    assert replies["Samples"].item() == 4
    assert not Path(f"W-{kind}/Tiny/Tiny_Scenes_Two_evidence.parquet").exists()


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


def test_a_limit_that_cuts_a_sample_leaves_it_out_and_says_so(kit, capsys):
    words = ["--data", "scenes_few.yaml", "--model", "lad-tiny", "--work-dir", "W-limit", "--limit", "5"]
    assert invoke(["vlmeval", *words]) == 0
    assert "1 of 5 answers are left out" in capsys.readouterr().err
    (row,) = pd.read_csv("W-limit/lad-tiny/lad-tiny_Scenes_Few_acc.csv").to_dict("records")
    assert (row["Samples"], row["Orders"]) == (2, 2)


def test_predictions_as_json_and_tsv(done, monkeypatch, capsys):
    words = ["vlmeval", "--data", "scenes_few.yaml", "--model", "lad-tiny+LAD"]
    for form in ("tsv", "json"):
        monkeypatch.setenv("PRED_FORMAT", form)
        assert invoke([*words, "--work-dir", f"W-{form}"]) == 0
        assert predictions(Path(f"W-{form}"), "lad-tiny+LAD", form=form) == predictions(done, "lad-tiny+LAD")
    assert invoke([*words, "--work-dir", "W-json"]) == 2
    assert "VLMEvalKit cannot go on from predictions kept as JSON" in capsys.readouterr().err
    assert invoke([*words, "--work-dir", "W-json", "--mode", "eval"]) == 0


def test_a_rerun_asks_nothing_and_scores_again(done, capsys):
    score = done / "lad-tiny+LAD" / "lad-tiny+LAD_Scenes_Few_acc.csv"
    before = score.read_text()
    score.unlink()
    assert invoke(["vlmeval", "--data", "scenes_few.yaml", "--model", "lad-tiny+LAD", "--work-dir", "W"]) == 0
    assert score.read_text() == before


@pytest.mark.parametrize("form", ["xlsx", "tsv", "json"])
def test_what_tables_do_to_replies(kit, tmp_path, form):
    """xlsx takes "=2" for a formula and gives 0 back; both tables lose the difference between "", "None" and nothing."""
    import vlmeval.smp

    from lad_eval.methods.parsing import parse_reply
    from lad_eval.plugins.vlmevalkit.scores import read_replies

    written = {"q1": "2", "q2": "=2", "q3": "", "q4": "None", "q5": "Image 3", "q6": "1 or 2", "q7e5": "NaN"}
    path = str(tmp_path / f"x.{form}")
    vlmeval.smp.dump(pd.DataFrame({"index": written.keys(), "prediction": written.values()}), path)
    replies = read_replies(path)
    assert list(replies) == list(written)
    positions = [parse_reply(reply, ("1", "2", "3")) for reply in replies.values()]
    formula = None if form == "xlsx" else 1
    assert positions == [1, formula, None, None, 2, None, None]


def test_predictions_of_another_task_or_none_are_refused(kit, tmp_path):
    from lad_eval.plugins.vlmevalkit.datasets import LADDataset

    dataset = LADDataset("Scenes_Few")
    for content, fault in (
        (pd.DataFrame({"index": ["q0"], "prediction": ["1"]}), "answers other questions"),
        (pd.DataFrame({"index": dataset.data["index"][:1], "prediction": ["1"]}), "No sample was asked in all 2 orders"),
        (pd.DataFrame({"other": [1]}), "Cannot read the predictions"),
    ):
        path = tmp_path / "lad-tiny_Scenes_Few.xlsx"
        content.to_excel(path)
        with pytest.raises(UserError, match=fault):
            dataset.evaluate(str(path))
    with pytest.raises(UserError, match="Cannot read the predictions"):
        dataset.evaluate(str(tmp_path / "none.xlsx"))


def test_the_data_set_is_one_of_vlmevalkits(kit):
    import vlmeval.dataset
    import vlmeval.run

    data = vlmeval.dataset.build_dataset("Scenes_Few", limit=1, mode="all", config=None)
    assert len(data) == 8
    assert data.force_use_dataset_prompt
    images = data.build_prompt(data.data.iloc[0])
    assert [part["type"] for part in images] == ["image"] * 4 + ["text"]
    assert all(Path(part["value"]).is_file() for part in images[:4])
    assert vlmeval.dataset.DATASET_TYPE("Scenes_Few") == "Retrieval"
    assert vlmeval.dataset.DATASET_MODALITY("Scenes_Few") == "IMAGE"
    flags = {name.lstrip("-").replace("-", "_") for name in _flags(vlmeval.run.parse_args)}
    assert {"limit", "mode", "config"} <= flags
    assert not flags & set(inspect.signature(type(data).__init__).parameters)


def _flags(parse_args):
    import re

    return re.findall(r"'(--[a-z-]+)'", inspect.getsource(parse_args))


def test_registering_again_changes_nothing_and_tls_stays_verified(kit):
    import vlmeval.config
    import vlmeval.dataset
    import vlmeval.inference

    from lad_eval.plugins.vlmevalkit import register

    tables = vlmeval.config.supported_VLM
    assert vlmeval.inference.supported_VLM is tables
    before = len(vlmeval.dataset.DATASET_CLASSES), len(vlmeval.dataset.SUPPORTED_DATASETS), len(tables)
    assert register() == []
    assert vlmeval.config.supported_VLM is tables
    assert before == (len(vlmeval.dataset.DATASET_CLASSES), len(vlmeval.dataset.SUPPORTED_DATASETS), len(tables))
    assert "ScenesRetrieval_Adversarial_N12" in vlmeval.dataset.SUPPORTED_DATASETS
    assert ssl._create_default_https_context is VERIFIED


def test_entries_are_found_on_demand(kit):
    import vlmeval.config

    table = vlmeval.config.supported_VLM
    for name in ("lad-tiny", "lad-tiny+raw-attention", "HF:org/name+LAD", "HF--org--name", "SmolVLM+LAD,top_k=2"):
        assert name in table
        assert callable(table[name])
        assert table.get(name) is not None
    for name in ("lad-tinny+LAD", "SmolVLM+LOD", "GPT4o+LAD", "HF:./nowhere+LAD", 5):
        assert name not in table
    assert table.get("lad-tinny") is None
    with pytest.raises(UserError, match=r"Unknown model 'lad-tinny'\. Did you mean 'lad-tiny'"):
        table["lad-tinny+LAD"]
    with pytest.raises(UnsupportedModelError, match="GPT4o is not supported: an API"):
        table["GPT4o+LAD"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--data", "scenes_few.yaml", "--model", "SmolVLN+LAD"], "Unknown model 'SmolVLN'. Did you mean"),
        (["--data", "scenes_few.yaml", "--model", "GPT4o+LAD"], "GPT4o is not supported: an API"),
        (["--data", "scenes_few.yaml", "--model", "lad-tiny+LAD", "--api-mode"], "--api-mode is for APIs"),
        (["--data", "scenes_few.yaml", "--model", "lad-tiny+cot"], "cot reads what the model writes"),
        (["--data", "scenes_few.yaml", "--model", "lad-tiny+instruction+LAD"], "instruction changes how the model is asked"),
        (["--data", "ScenesRetrival_Random_N4", "--model", "lad-tiny"], "Did you mean 'ScenesRetrieval_Random_N4'"),
    ],
)
def test_wrong_names_end_before_anything_runs(kit, words, fault, capsys):
    assert invoke(["vlmeval", *words, "--work-dir", "W-wrong"]) == 2
    assert fault in capsys.readouterr().err.splitlines()[-1]
    assert not Path("W-wrong").exists()


def test_vllm_is_refused_and_its_argument_is_taken(kit):
    import vlmeval.config

    build = vlmeval.config.supported_VLM["lad-tiny+LAD"]
    assert build(use_vllm=False).name == "lad-tiny+LAD"
    with pytest.raises(UserError, match="leave out --use-vllm"):
        build(use_vllm=True)


def test_other_data_sets_are_refused(kit):
    import vlmeval.config

    model = vlmeval.config.supported_VLM["lad-tiny+LAD"]()
    with pytest.raises(UserError, match=r"lad-tiny\+LAD answers the tasks of lad_eval only, not MMBench"):
        model.generate([{"type": "text", "value": "What?"}], dataset="MMBench")


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


def test_methods_that_look_at_several_orders(done):
    models = ["lad-tiny+average-cyclic+LAD", "lad-tiny+pride-original"]
    assert invoke(["vlmeval", "--data", "scenes_few.yaml", "--model", *models, "--work-dir", "W"]) == 0
    words = ["--model", "lad-tiny", "--tasks", "scenes_few.yaml", "--methods", "average-cyclic+lad,pride-original"]
    assert invoke(["run", *words, "--out", "own-views", "--quiet"]) == 0
    (path,) = Path("own-views").rglob("predictions.parquet")
    for method, rows in pd.read_parquet(path).groupby("method"):
        own = {(row.sample_id, row.permutation): str(row.position + 1) for row in rows.itertuples()}
        assert predictions(done, next(model for model in models if model.lower().endswith(method))) == own


def test_a_failed_combination_ends_with_its_reason(kit, capsys, monkeypatch):
    from lad_eval.plugins.vlmevalkit.datasets import LADDataset

    def broken(self, request):
        raise UserError("The disk is full.")

    monkeypatch.setattr(LADDataset, "message", broken)
    assert invoke(["vlmeval", "--data", "scenes_few.yaml", "--model", "lad-tiny", "--work-dir", "W-broken"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: 1 of the combinations failed. lad-tiny x Scenes_Few: The disk is full."
    )


def noted(name, folder, model, settings, monkeypatch):
    """A work folder with answers by LAD, and the note of what made them."""
    from lad_eval.plugins.vlmevalkit.pointers import Pointer, write_pointer

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
    assert "nothing says what made them" in capsys.readouterr().err


def test_one_order_has_no_consistency(kit, place):
    (place / "one_order.yaml").write_text(FEW.format(n=2).replace("{count: 2}", "{count: 1, scheme: identity}"))
    assert invoke(["vlmeval", "--data", "one_order.yaml", "--model", "lad-tiny", "--work-dir", "W-one"]) == 0
    table = pd.read_csv("W-one/lad-tiny/lad-tiny_One_Order_acc.csv")
    assert {"Overall", "Orders"} < set(table)
    assert not {"Consistency", "Accuracy std"} & set(table)


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


@pytest.mark.slow
def test_two_processes_share_the_rows(done):
    """As `torchrun` starts them; without a GPU they join through gloo."""
    words = ["--data", "scenes_few.yaml", "--model", "lad-tiny+LAD", "--work-dir", "W-two"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, "-m", "lad_eval", "vlmeval", *words], check=True, capture_output=True, timeout=400)
    assert predictions(Path("W-two"), "lad-tiny+LAD") == predictions(done, "lad-tiny+LAD")
    parts = sorted(path.name for path in Path("W-two/lad_eval").rglob("evidence*.jsonl"))
    assert parts == ["evidence.rank0.jsonl", "evidence.rank1.jsonl"]
    assert len(read_parquet(Path("W-two/lad-tiny+LAD/lad-tiny+LAD_Scenes_Few_evidence.parquet"))) == 8
