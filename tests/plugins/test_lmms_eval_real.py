"""Inside the real lmms-eval; `.ci/lmms-eval` makes an environment that has it, and runs these."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

pytest.importorskip("lmms_eval", reason="lmms-eval has an environment of its own: .ci/lmms-eval")

from lad_eval.cli.main import invoke
from lad_eval.errors import UserError
from lad_eval.plugins.lmms_eval.launch import LMMS_EVAL
from lad_eval.plugins.task_folder import write_tasks
from lad_eval.run.execute import Settings, run_tasks

TASK = "scenes_random_n4"
SAMPLES = 8
METHODS = ("vanilla", "pride", "lad", "permutation-average", "fastv(keep=0.25)+lad", "random-tokens(keep=12, seed=1)+pride")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tasks as lmms-eval's, and beside them a task that is not ours."""
    out = tmp_path_factory.mktemp("tasks")
    write_tasks(LMMS_EVAL, out, ["scenes_random_n2", TASK])
    (out / "other.jsonl").write_text('{"q": "1 + 1 = ", "a": "2"}\n')
    (out / "other.yaml").write_text(
        "task: other\ndataset_path: json\ndataset_kwargs: {data_files: {test: other.jsonl}}\ntest_split: test\n"
        "output_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\ngeneration_kwargs: {max_new_tokens: 4}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    return out


@pytest.fixture(scope="module")
def evaluate(folder):
    """lmms-eval's own `simple_evaluate`, without the index of its own tasks, which takes seconds."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    def run(model, model_args, task=TASK, limit=5 * SAMPLES, **options):
        manager = TaskManager("ERROR", include_path=str(folder), include_defaults=False, model_name=model)
        found = simple_evaluate(
            model=model,
            model_args=model_args,
            tasks=[task],
            limit=limit,
            task_manager=manager,
            device="cpu",
            bootstrap_iters=0,
            **{"batch_size": 8, **options},
        )
        figures = {key.partition(",")[0]: value for key, value in found["results"][task].items()}
        return figures, found["samples"][task]

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Figures and answers of `lad-eval run`."""
    out = tmp_path_factory.mktemp("runs")
    rows = run_tasks(Settings("lad-tiny", (TASK,), METHODS, limit=SAMPLES, batch_size=8, device="cpu", out=out, quiet=True))
    (file,) = out.rglob("predictions.parquet")
    return {row.method: row for row in rows}, pd.read_parquet(file)


@pytest.mark.parametrize("method", METHODS)
def test_answers_and_figures_are_those_of_a_run(evaluate, run, tmp_path, method):
    figures, samples = evaluate("lad_eval", f"pretrained=lad-tiny,method={method},store={tmp_path}")
    rows, told = run
    answers = told[told["method"] == method].set_index("key")["position"]
    assert len(samples) == 5 * SAMPLES
    for sample in samples:
        (reply,) = sample["filtered_resps"]
        assert int(reply) - 1 == answers[sample["doc"]["key"]]
    for figure in ("accuracy", "accuracy_std", "rstd", "consistency"):
        assert 100 * figures[figure] == pytest.approx(getattr(rows[method], figure)), figure
    assert figures["unparsable"] == 0
    assert figures["accuracy_stderr_clustered"] != "N/A"
    assert figures["consistency_stderr_clt"] == "N/A"


def test_evidence_and_calibration_are_kept(evaluate, tmp_path):
    evaluate("lad_eval", f"pretrained=lad-tiny,method=lad,store={tmp_path}")
    (rows,) = tmp_path.rglob("evidence.jsonl")
    asked = rows.read_bytes()
    assert [path.name.partition("-")[0] for path in tmp_path.rglob("*.safetensors")] == ["lad"]
    evaluate("lad_eval", f"pretrained=lad-tiny,method=pride,store={tmp_path}")
    assert rows.read_bytes() == asked


def test_free_text_is_parsed_strictly(evaluate, tmp_path):
    figures, _ = evaluate("lad_eval", f"pretrained=random:qwen2.5-vl,method=generate,store={tmp_path}", limit=10)
    assert figures["unparsable"] == 10
    assert figures["accuracy"] == figures["consistency"] == 0


def test_a_model_of_lmms_evals_own_takes_the_tasks(evaluate, tmp_path):
    pytest.importorskip("decord", reason="lmms-eval's LLaVA imports it")
    from lad_eval.models.random import load_random

    for part in load_random("llava-onevision"):
        part.save_pretrained(tmp_path)
    figures, samples = evaluate("llava_hf", f"pretrained={tmp_path},device_map=cpu,dtype=float32", limit=10, batch_size=1)
    assert len(samples) == 10
    assert all(isinstance(sample["resps"][0][0], str) and sample["resps"][0][0] for sample in samples)
    assert figures["unparsable"] <= 10


@pytest.mark.parametrize(
    ("model_args", "fault"),
    [
        ("method=lad", "Name a model: pretrained="),
        ("pretrained=lad-tiny", "Name a method: method=<one of vanilla, pride, lad,"),
        ("pretrained=lad-tiny,method=ladd", "Unknown method 'ladd'. Did you mean 'lad'"),
        ("pretrained=lad-tinny,method=lad", "Unknown model 'lad-tinny'. Did you mean 'lad-tiny'"),
        ("pretrained=lad-tiny,method=lad,batchsize=2", "Unknown model argument 'batchsize'. Did you mean 'batch_size'"),
        ("pretrained=lad-tiny,method=cot", "cot reads the model's replies"),
        ("pretrained=lad-tiny,method=instruction+lad", "instruction changes the prompt or the model"),
        ("pretrained=lad-tiny,method=fastv(keep=2.0, layer=1)+lad", "keep of fastv must be a whole number of tokens"),
        ("pretrained=lad-tiny,method=lad(topk=2)", "lad has no parameter 'topk'"),
        ("pretrained=lad-tiny,method=lad(top_k=0,layers=all)", "top_k of lad must be 'all' or a whole number"),
        ("pretrained=lad-tiny,method=lad(top_k=2", "'lad(top_k=2': parameters stand in brackets"),
        ("pretrained=lad-tiny,method=lad,settings=top_k=2", "Unknown model argument 'settings'"),
        ("pretrained=lad-tiny,method=lad,device=cuda:7", "Device 'cuda:7'"),
        ("lad-tiny", "--model_args must be key=value, separated by commas, not 'lad-tiny'"),
    ],
)
def test_wrong_arguments_are_named(model_args, fault):
    from lad_eval.plugins.lmms_eval.model import LadEval

    with pytest.raises(UserError) as caught:
        LadEval.create_from_arg_string(model_args, {"batch_size": 1, "device": None})
    assert str(caught.value).startswith(fault)


def test_our_model_takes_our_tasks_only(capsys):
    assert invoke(["lmms-eval", "run", "--model", "lad_eval", "--model_args", "pretrained=lad-tiny", "--tasks", "mme"]) == 2
    assert "mme is not a task of lad_eval, which `--model lad_eval` needs" in capsys.readouterr().err


def test_what_the_model_cannot_answer_is_refused(evaluate, tmp_path):
    model = f"pretrained=lad-tiny,method=lad,store={tmp_path}"
    with pytest.raises(UserError, match="other is not a task of lad_eval"):
        evaluate("lad_eval", model, task="other", limit=None)
    with pytest.raises(UserError, match="uses a task's own question, without examples, system prompt or chat template"):
        evaluate("lad_eval", model, limit=5, system_instruction="Be brief.")
    with pytest.raises(UserError, match="scenes_random_n4 cannot be calibrated on scenes_random_n2"):
        evaluate("lad_eval", f"{model},calibrate_on=scenes_random_n2", limit=5)


def command(*arguments, cwd, launcher=("-m", "lmms_eval")):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, *launcher, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environment
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_lmms_evals_own_command(folder, run, tmp_path):
    code, out, err = command(
        *("--model", "lad_eval", "--model_args", "pretrained=lad-tiny,method=lad", "--include_path", folder, "--tasks", TASK),
        *("--limit", 5 * SAMPLES, "--batch_size", "auto", "--output_path", "out", "--log_samples"),
        cwd=tmp_path,
    )
    assert code == 0, err
    assert "|consistency |" in out
    (results,) = (tmp_path / "out" / "lad-tiny").glob("*_results.json")
    told = json.loads(results.read_text())["results"][TASK]
    assert 100 * told["accuracy,none"] == pytest.approx(run[0]["lad"].accuracy)
    assert list((tmp_path / "results/runs/lad-tiny" / TASK).glob("*/calibration/lad-*.safetensors"))


def test_several_processes_share_the_work(run, tmp_path):
    code, _, err = command(
        *("--model", "lad_eval", "--model_args", f"pretrained=lad-tiny,method=lad,store={tmp_path}/runs", "--tasks", TASK),
        *("--limit", 5 * SAMPLES, "--output_path", "out"),
        cwd=tmp_path,
        launcher=("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lad_eval", "lmms-eval", "run"),
    )
    assert code == 0, err
    (results,) = (tmp_path / "out" / "lad-tiny").glob("*_results.json")
    told = json.loads(results.read_text())["results"][TASK]
    assert 100 * told["accuracy,none"] == pytest.approx(run[0]["lad"].accuracy)
    assert len(list((tmp_path / "runs").rglob("evidence.rank*.jsonl"))) == 2


def test_faults_below_the_command_are_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    flags = ["lmms-eval", "run", "--model", "lad_eval", "--limit", "5", "--model_args"]
    with pytest.raises(SystemExit) as ended:
        invoke([*flags, "pretrained=lad-tiny,method=ladd", "--tasks", TASK])
    assert ended.value.code == 2
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")] == [
        "error: Unknown method 'ladd'. Did you mean 'lad'?"
    ]
    assert invoke([*flags, "pretrained=lad-tiny,method=lad", "--tasks", "scenes_randm_n4"]) == 2
    assert "Did you mean 'scenes_random_n4'" in capsys.readouterr().err
    assert invoke([*flags, "pretrained=lad-tiny,method=lad", "--tasks", TASK, "--include_path", "."]) == 2
    assert "lmms-eval takes one --include_path" in capsys.readouterr().err
    assert invoke(["lmms-eval", "run", "--model", "no_such_model", "--tasks", TASK]) == 1


def test_a_name_that_lmms_eval_has_is_refused(tmp_path):
    (tmp_path / "mme.yaml").write_text("source: scenes\ncandidates: 2\n")
    with pytest.raises(UserError, match="lmms-eval has a task named 'mme' of its own; copy yours to a file of another name"):
        write_tasks(LMMS_EVAL, tmp_path / "out", [str(tmp_path / "mme.yaml")])
