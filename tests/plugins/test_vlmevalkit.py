"""The tasks and methods inside the real VLMEvalKit, through its own main loop."""

import inspect
import json
import os
import ssl
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from lad_eval.cli.main import invoke
from lad_eval.errors import UnsupportedModelError, UserError
from lad_eval.evidence.files import read_parquet
from lad_eval.methods import LAD
from tests.plugins.vlmevalkit_runs import FEW, own_run, predictions

# Not imported here: it would switch gradients off for every test of the process.
pytestmark = pytest.mark.skipif(find_spec("vlmeval") is None, reason="VLMEvalKit is an extra")

VERIFIED = ssl._create_default_https_context


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


def test_a_task_in_a_folder_of_include_path_is_known_by_its_name(kit, capsys):
    Path("included").mkdir()
    Path("included/scenes_included.yaml").write_text(FEW.format(n=2))
    words = ["vlmeval", "--data", "scenes_included", "--model", "lad-tiny", "--work-dir", "W-included"]
    assert invoke(words) == 2
    assert "scenes_included" in capsys.readouterr().err
    assert invoke([*words, "--include-path", "included"]) == 0
    assert Path("W-included/lad-tiny/lad-tiny_Scenes_Included_acc.csv").is_file()


def test_answers_are_those_of_lad_eval_run(done):
    own = own_run("lad-tiny", "scenes_few.yaml", "own-tiny")
    for method, model in (("lad", "lad-tiny+LAD"), ("pride", "lad-tiny+PriDe"), ("vanilla", "lad-tiny")):
        assert predictions(done, model) == own[method]


def test_each_of_several_data_sets_is_decided_by_its_own_calibration(kit, place):
    (place / "scenes_other.yaml").write_text(FEW.format(n=4).replace("random", "adversarial"))
    files = {"scenes_few.yaml": "Scenes_Few", "scenes_other.yaml": "Scenes_Other", "scenes_two.yaml": "Scenes_Two"}
    models = ["lad-tiny+LAD", "lad-tiny+PriDe"]
    assert invoke(["vlmeval", "--data", *files, "--model", *models, "--work-dir", "W-several"]) == 0
    learned = {path.read_bytes() for path in Path("W-several").rglob("pride-*.safetensors")}
    assert len(learned) == len(files)
    for file, data in files.items():
        own = own_run("lad-tiny", file, f"own-{data}")
        assert {model: predictions(Path("W-several"), model, data) for model in models} == dict(
            zip(models, (own["lad"], own["pride"]), strict=True)
        )


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


def test_a_folder_with_an_adapter_is_the_base_with_the_adapter(kit):
    peft = pytest.importorskip("peft")
    import torch

    from lad_eval.models.random import load_random

    model, processor = load_random("qwen2.5-vl", seed=3)
    for part in (model, processor):
        part.save_pretrained("adapter-base")
    model.name_or_path = str(Path("adapter-base").resolve())
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=64, target_modules=["q_proj", "o_proj", "v_proj"]))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5)
    adapted.save_pretrained("adapter-alone")
    merged = adapted.merge_and_unload()
    for part in (merged, processor):
        part.save_pretrained("adapter-merged")
    answers = {}
    for name in ("adapter-base", "adapter-alone", "adapter-merged"):
        assert invoke(["vlmeval", "--data", "scenes_two.yaml", "--model", f"HF:{name}", "--work-dir", f"W-{name}"]) == 0
        (place,) = Path(f"W-{name}").glob("HF--*")
        answers[name] = predictions(Path(f"W-{name}"), place.name, "Scenes_Two")
    (evidence,) = (read_parquet(path) for path in Path("W-adapter-alone").rglob("*_evidence.parquet"))
    (other,) = (read_parquet(path) for path in Path("W-adapter-merged").rglob("*_evidence.parquet"))
    (plain,) = (read_parquet(path) for path in Path("W-adapter-base").rglob("*_evidence.parquet"))
    order = {key: row for row, key in enumerate(evidence.key.tolist())}
    rows = [order[key] for key in other.key.tolist()]
    assert (evidence.log_probs[rows] == other.log_probs).all()
    assert not (evidence.select_keys(plain.key.tolist()).log_probs == plain.log_probs).all()
    assert answers["adapter-alone"] == answers["adapter-merged"]
    assert "adapter" in evidence.fingerprint


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


@pytest.mark.parametrize("form", ["xlsx", "tsv", "json"])
def test_what_tables_do_to_replies(kit, tmp_path, form):
    """xlsx takes "=2" for a formula and gives 0 back; both tables lose the difference between "", "None" and nothing."""
    import vlmeval.smp

    from lad_eval.methods.replying import parse_reply
    from lad_eval.plugins.vlmevalkit.scores import read_replies

    written = {"q1": "2", "q2": "=2", "q3": "", "q4": "None", "q5": "Image 3", "q6": "1 or 2", "q7e5": "NaN"}
    path = str(tmp_path / f"x.{form}")
    vlmeval.smp.dump(pd.DataFrame({"index": written.keys(), "prediction": written.values()}), path)
    replies = read_replies(path)
    assert list(replies) == list(written)
    positions = [parse_reply(reply, ("1", "2", "3")) for reply in replies.values()]
    formula = None if form == "xlsx" else 1
    assert positions == [1, formula, None, None, 2, None, None]


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
        (["--data", "scenes_few.yaml", "--model", "lad-tiny+LAD", "--use-vllm"], "leave out --use-vllm"),
        (["--data", "scenes_few.yaml", "--model", "lad-tiny+cot"], "cot reads the model's replies"),
        (["--data", "scenes_few.yaml", "--model", "openai:served+PriDe"], "VLMEvalKit runs models behind a server itself"),
        (["--data", "scenes_count_n4", "--model", "lad-tiny+LAD"], "scenes_count_n4 has texts to choose from"),
        (["--data", "scenes_few.yaml", "--model", "lad-tiny+instruction+LAD"], "instruction changes the prompt or the model"),
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


def test_methods_that_look_at_several_orders(done):
    models = ["lad-tiny+average-cyclic+LAD", "lad-tiny+pride-original"]
    assert invoke(["vlmeval", "--data", "scenes_few.yaml", "--model", *models, "--work-dir", "W"]) == 0
    words = ["--model", "lad-tiny", "--tasks", "scenes_few.yaml", "--methods", "average-cyclic+lad,pride-original"]
    assert invoke(["run", *words, "--runs", "own-orders", "--quiet"]) == 0
    (path,) = Path("own-orders").rglob("predictions.parquet")
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


def test_one_order_has_no_consistency(kit, place):
    (place / "one_order.yaml").write_text(FEW.format(n=2).replace("{count: 2}", "{count: 1, scheme: identity}"))
    assert invoke(["vlmeval", "--data", "one_order.yaml", "--model", "lad-tiny", "--work-dir", "W-one"]) == 0
    table = pd.read_csv("W-one/lad-tiny/lad-tiny_One_Order_acc.csv")
    assert {"Overall", "Orders"} < set(table)
    assert not {"Consistency", "Accuracy std"} & set(table)


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
