"""Inside the real lm-eval; `.ci/doors` makes an environment that has it, and runs these."""

import json

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("lm_eval", reason="lm-eval has an environment of its own: .ci/doors")

from lad_eval.cli.main import invoke
from lad_eval.errors import UserError
from lad_eval.plugins.lm_eval.launch import LM_EVAL
from lad_eval.plugins.task_folder import write_tasks
from lad_eval.run.execute import Settings, run_tasks

TASK = "scenes_random_n4"
SAMPLES = 8
METHODS = ("vanilla", "pride", "lad", "permutation-average", "fastv(keep=0.25)+lad")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tasks and a group as lm-eval's, and one that is not ours."""
    out = tmp_path_factory.mktemp("tasks")
    write_tasks(LM_EVAL, out, ["scenes_main", "scenes_random_n2"])
    (out / "other.jsonl").write_text('{"q": "1 + 1 = ", "a": "2"}\n')
    (out / "other.yaml").write_text(
        f"task: other\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {out}/other.jsonl}}}}\ntest_split: test\n"
        "output_type: generate_until\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\ngeneration_kwargs: {until: ['.']}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    return out


@pytest.fixture(scope="module")
def evaluate(folder):
    """lm-eval's own `simple_evaluate`, without the index of its own tasks, which takes a minute."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    def run(model, task=TASK, limit=SAMPLES, **options):
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        return simple_evaluate(model, tasks=[task], limit=limit, task_manager=manager, bootstrap_iters=100, **options)

    return run


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    from lad_eval.plugins.lm_eval.model import LmEvalModel

    store = tmp_path_factory.mktemp("store")

    def make(method, pretrained="lad-tiny"):
        return LmEvalModel(pretrained=pretrained, method=method, store=store, batch_size=8)

    return make


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """Figures and answers of `lad-eval run`."""
    out = tmp_path_factory.mktemp("runs")
    rows = run_tasks(Settings("lad-tiny", (TASK,), METHODS, limit=SAMPLES, batch_size=8, device="cpu", out=out, quiet=True))
    (file,) = out.rglob("predictions.parquet")
    return {row.method: row for row in rows}, pd.read_parquet(file)


@pytest.mark.parametrize("method", METHODS)
def test_answers_and_figures_are_those_of_a_run(evaluate, ours, native, method):
    found = evaluate(ours(method), log_samples=True)
    rows, answers = native
    answers = answers[answers["method"] == method].set_index("key")["position"]
    samples = found["samples"][TASK]
    assert len(samples) == SAMPLES
    for sample in samples:
        assert [int(reply) - 1 for reply in sample["filtered_resps"]] == [answers[row["key"]] for row in sample["doc"]["orders"]]
    figures = {key.partition(",")[0]: value for key, value in found["results"][TASK].items()}
    assert 100 * figures["acc"] == pytest.approx(rows[method].accuracy)
    assert 100 * figures["consistency"] == pytest.approx(rows[method].consistency)
    assert 100 * figures["rstd"] == pytest.approx(rows[method].rstd)
    assert figures["flip"] == pytest.approx(1 - figures["consistency"])
    assert figures["unparsable"] == 0
    for name in ("acc", "consistency", "flip"):  # of the samples' values, so clustered by sample
        values = [sample[name] for sample in samples]
        assert figures[f"{name}_stderr"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(SAMPLES))
    assert figures["rstd_stderr"] == "N/A"


def test_a_group_is_run_as_a_whole(evaluate, ours):
    found = evaluate(ours("vanilla"), task="scenes_main", limit=2)
    assert len(found["results"]) >= 4
    assert {name for name in found["results"] if name.startswith("scenes_")} >= {TASK, "scenes_adversarial_n4"}


@pytest.mark.slow
def test_lm_evals_own_multimodal_model_takes_the_tasks(evaluate, tmp_path):
    from lad_eval.models.random import load_random

    for part in load_random("llava-onevision"):
        part.save_pretrained(tmp_path)
    arguments = {"pretrained": str(tmp_path), "dtype": "float32"}
    options = {"apply_chat_template": True, "log_samples": True, "device": "cpu", "batch_size": 1}
    found = evaluate("hf-multimodal", model_args=arguments, limit=2, **options)
    samples = found["samples"][TASK]
    assert len(samples) == 2
    assert all(len(sample["filtered_resps"]) == 5 and all(sample["filtered_resps"]) for sample in samples)
    assert 0 <= found["results"][TASK]["unparsable,none"] <= 1


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"method": "lad"}, "Name a model: pretrained="),
        ({"pretrained": "lad-tiny"}, "Name a method: method=<one of vanilla, pride, lad,"),
        ({"pretrained": "lad-tiny", "method": "ladd"}, "Unknown method 'ladd'. Did you mean 'lad'"),
        ({"pretrained": "lad-tinny", "method": "lad"}, "Unknown model 'lad-tinny'. Did you mean 'lad-tiny'"),
        (
            {"pretrained": "lad-tiny", "method": "lad", "batchsize": 2},
            "Unknown model argument 'batchsize'. Did you mean 'batch_size'",
        ),
        ({"pretrained": "lad-tiny", "method": "cot"}, "cot reads the model's replies"),
        ({"pretrained": "lad-tiny", "method": "lad", "device": "cuda:7"}, "Device 'cuda:7'"),
    ],
)
def test_wrong_arguments_are_named(arguments, fault):
    from lad_eval.plugins.lm_eval.model import LmEvalModel

    with pytest.raises(UserError) as caught:
        LmEvalModel(**arguments)
    assert str(caught.value).startswith(fault)


def test_what_the_model_cannot_answer_is_refused(evaluate, ours):
    with pytest.raises(UserError, match="other is not a task of lad_eval"):
        evaluate(ours("lad"), task="other", limit=None)
    with pytest.raises(UserError, match="uses a task's own question, without examples, system prompt or chat template"):
        evaluate(ours("lad"), system_instruction="Be brief.")


def test_a_folder_of_an_older_definition_is_refused(folder, evaluate, ours):
    path = folder / "scenes_random_n2.yaml"
    before = path.read_text()
    path.write_text(before.replace("definition: ", "definition: old"))
    try:
        with pytest.raises(UserError, match="has changed since its folder was written; write it again with `lad-eval lm-eval"):
            evaluate(ours("vanilla"), task="scenes_random_n2")
    finally:
        path.write_text(before)


def test_faults_of_the_command_are_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    flags = ["lm-eval", "run", "--model", "lad_eval", "--model_args", "pretrained=lad-tiny,method=lad"]
    assert invoke([*flags, "--tasks", "scenes_randm_n4"]) == 2
    assert "Did you mean 'scenes_random_n4'" in capsys.readouterr().err
    assert invoke([*flags, "--tasks", TASK, "--include_path", "."]) == 2
    assert "lm-eval takes one --include_path" in capsys.readouterr().err
    assert invoke([*flags, "--tasks", "hellaswag"]) == 2
    assert "hellaswag is not a task of lad_eval" in capsys.readouterr().err


@pytest.mark.slow
def test_lm_evals_own_command(native, monkeypatch, tmp_path, capsys):
    """As a user types it: the index of lm-eval's own tasks is made, too."""
    monkeypatch.chdir(tmp_path)
    code = invoke(
        [
            *("lm-eval", "run", "--model", "lad_eval", "--model_args", "pretrained=lad-tiny,method=lad(top_k=4, layers=all)"),
            *("--tasks", TASK, "--limit", str(SAMPLES), "--output_path", "out", "--log_samples"),
        ]
    )
    assert code == 0
    assert "|consistency" in capsys.readouterr().out
    (results,) = tmp_path.rglob("results_*.json")
    assert json.loads(results.read_text())["results"][TASK]["acc,none"] > 0.5
    (logged,) = tmp_path.rglob(f"samples_{TASK}_*.jsonl")
    assert len(logged.read_text().splitlines()) == SAMPLES
    assert list((tmp_path / "results/runs/lad-tiny" / TASK).glob("*/calibration/lad-*.safetensors"))
