"""The command line: what is printed where, exit codes, and every fault in one line."""

import csv
import io
import json
import re
import subprocess
import sys

import pytest

import lad_eval
from lad_eval.cli.main import invoke
from lad_eval.run import execute
from lad_eval.run.folder.rows import COLUMNS
from tests.run.conftest import METHODS, MODEL, TASK, only_run

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")

HEAVY = ("torch", "transformers", "pandas", "scipy", "pyarrow", "matplotlib")


@pytest.fixture(scope="module")
def model():
    from lad_eval.models.registry import load_model

    return load_model(MODEL, batch_size=8, device="cpu", seed=42)


@pytest.fixture(scope="module")
def results(tmp_path_factory, model):
    """A results folder with one finished run, and what `run --json` printed for it."""
    out = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "load_model", lambda name, **options: model)
        patch.setattr(sys, "stdout", printed := io.StringIO())
        patch.setattr(sys, "stderr", told := io.StringIO())
        methods = ",".join(METHODS)
        code = invoke(["run", "-m", MODEL, "-t", TASK, "--methods", methods, "--limit", "3", "--runs", str(out), "--json"])
    assert code == 0
    return out, printed.getvalue(), told.getvalue()


def call(capsys, *arguments):
    code = invoke([str(a) for a in arguments])
    return (code, *capsys.readouterr())


def fails(capsys, *arguments):
    """The one line of a fault."""
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_run_json_is_one_document_of_rows_and_nothing_else(results):
    _, printed, told = results
    rows = json.loads(printed)
    assert [row["method"] for row in rows] == list(METHODS)
    for row in rows:
        assert tuple(row) == COLUMNS
        assert (row["model"], row["task"], row["samples"], row["permutations"], row["unparsable"]) == (MODEL, TASK, 3, 2, 0)
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
    # Three samples can show nothing: every method but the most accurate is marked as no worse.
    most = max(row["accuracy"] for row in rows)
    assert [row["p_best"] is None for row in rows] == [row["accuracy"] == most for row in rows]
    assert f"{TASK}: 16 requests run in " in told


def test_score_decides_again_without_a_model(capsys, results):
    out, printed, _ = results
    code, again, _ = call(capsys, "score", out, "--json")
    assert code == 0
    assert json.loads(again) == json.loads(printed)
    code, table, _ = call(capsys, "score", out, "--set", "lad(top_k=1)", "--set", "lad(layers=all)", "--methods", "vanilla")
    assert code == 0
    assert "lad(top_k=1, layers=all)" in table
    assert "vanilla" in table
    assert "pride" not in table
    code, table, err = call(capsys, "score", out, "--set", "lad(top_k=1)", "--json")
    assert [row["method"] for row in json.loads(table)] == [*METHODS, "lad(top_k=1)"], "beside what it is to be compared with"
    assert "these results are not stored" in err
    assert "--methods 'vanilla," in err


def test_score_changes_nothing(capsys, results):
    folder = only_run(results[0])
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    call(capsys, "score", folder, "--set", "lad(top_k=1)")
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before


def test_score_and_leaderboard_need_no_torch(results):
    code = (
        "import sys; from lad_eval.cli.main import invoke\n"
        f"assert invoke(['score', {str(results[0])!r}, '--json']) == 0\n"
        f"assert invoke(['leaderboard', '--runs', {str(results[0])!r}]) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["ls", "tasks"], ["ls", "methods"], ["ls", "models"]]
)
def test_what_must_answer_at_once_imports_nothing_heavy(arguments):
    code = (
        "import sys; from lad_eval.cli.main import invoke\n"
        f"assert invoke({arguments!r}) == 0\n"
        f"heavy = set({HEAVY!r}) & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_end_of_the_process_loses_no_output_and_runs_what_was_registered():
    code = "import atexit, sys; from lad_eval.cli.main import main\natexit.register(lambda: print('the end'))\nmain(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{lad_eval.__version__}\nthe end\n", "")
    done = subprocess.run([sys.executable, "-c", code, "ls", "no-such-thing"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "the end\n")
    assert done.stderr.startswith("error: ")


def test_the_package_imports_nothing_by_itself():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, lad_eval; print({'numpy', 'torch'} & set(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"
    assert set(lad_eval.__all__) <= set(dir(lad_eval))
    with pytest.raises(AttributeError, match="no attribute 'load_tasks'"):
        lad_eval.load_tasks  # noqa: B018


def test_ls_names_tasks_methods_and_models(capsys):
    listed = [line.split() for line in call(capsys, "ls", "methods")[1].splitlines()]
    assert [words[0] for words in listed if words][:4] == ["Logits:", "vanilla", "pride", "cc"]
    heads = [words for words in listed if words and words[-1].endswith(":")]
    assert [head[0] for head in heads] == ["Logits:", "Attention:", "Several", "Replies:", "Changes"]
    assert "field stands for vanilla, instruction" in call(capsys, "ls", "methods")[1]
    assert "scenes_adversarial_n12" in call(capsys, "ls", "tasks")[1]
    assert "lad-tiny" in call(capsys, "ls", "models")[1]


@pytest.mark.parametrize("form", ["rich", "md", "latex", "html", "csv", "json"])
def test_leaderboard_in_every_format_holds_every_method(capsys, results, form):
    code, text, _ = call(capsys, "leaderboard", "--runs", results[0], "--format", form)
    assert code == 0
    assert all(method in text for method in METHODS)
    assert str(results[0]) not in text


def test_leaderboard_csv_reads_back(capsys, results):
    rows = list(csv.DictReader(io.StringIO(call(capsys, "leaderboard", "--runs", results[0], "-f", "csv")[1])))
    assert {row["method"] for row in rows} == set(METHODS)
    accuracies = [float(row[f"{TASK}.accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)


def test_leaderboard_is_filtered_and_sorted(capsys, results):
    arguments = ("leaderboard", "--runs", results[0], "-f", "json", "--methods", "*lad,vanilla", "--sort", "method")
    assert [row["method"] for row in json.loads(call(capsys, *arguments)[1])] == ["lad", "vanilla"]
    assert "fits --model nobody*" in fails(capsys, "leaderboard", "--runs", results[0], "--model", "nobody*")
    assert "Unknown sort 'best'" in fails(capsys, "leaderboard", "--runs", results[0], "--sort", "best")


def test_compare_methods_of_a_run(capsys, results):
    code, text, _ = call(capsys, "compare", results[0], "--methods", "lad,vanilla", "--json")
    (pair,) = json.loads(text)
    assert code == 0
    assert (pair["first"], pair["second"]) == ("lad", "vanilla")
    assert pair["accuracy"]["low"] <= pair["accuracy"]["value"] <= pair["accuracy"]["high"]
    assert 0 < pair["p_value"] <= pair["p_holm"] <= 1
    assert pair["detectable"] is None or pair["detectable"] > 0
    text = call(capsys, "compare", results[0])[1]
    assert "Holm" in text
    assert re.search(r"Does position matter\? .* p: vanilla\s[01]\S*, pride\s", text, re.DOTALL)
    assert text.startswith(f"{TASK} · {MODEL} · 3 samples x 2 orders\n\nFirst ")
    assert text.endswith("\n\n3 samples: the intervals mean little; run more samples.\n")
    assert {*METHODS[:-1]} <= {line.split()[0] for line in text.splitlines() if line}, "outside a terminal names are not folded"
    assert max(map(len, text.rpartition("\n− ")[2].splitlines()[1:])) <= 80
    assert "exact McNemar test on these counts, not on accuracy" in " ".join(text.split())


def test_compare_two_runs(capsys, results):
    pairs = json.loads(call(capsys, "compare", results[0], results[0], "--json")[1])
    assert len(pairs) == len(METHODS)
    assert all(pair["accuracy"]["value"] == 0 and pair["p_holm"] == 1 for pair in pairs)


def test_figure_draws_and_draws_the_same_again(capsys, results, tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "again.svg", "b.png"):
        assert call(capsys, "figure", results[0], "--out", tmp_path / name)[0] == 0
        assert (tmp_path / name).stat().st_size > 1000
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "again.svg").read_bytes()
    assert "Cannot write the figure to" in fails(capsys, "figure", results[0], "--out", tmp_path / "a.nonsense")


def test_validate_says_what_is_wrong_and_where(capsys, tmp_path):
    (tmp_path / "bad.yaml").write_text("source: scenes\ncandidates: 4\nsettting: random\n")
    code, out, err = call(capsys, "validate", tmp_path)
    assert (code, out) == (2, "")
    assert "settting" in err
    assert "Did you mean 'setting'" in err


def test_validate_says_what_it_checked_where_nothing_is_wrong(capsys, tmp_path):
    for number in (3, 4):
        (tmp_path / f"own_n{number}.yaml").write_text(f"source: scenes\ncandidates: {number}\nsamples: 4\n")
    assert call(capsys, "validate", tmp_path) == (0, "2 definitions checked, no fault found.\n", "")
    one = tmp_path / "own_n3.yaml"
    assert call(capsys, "validate", one, one)[:2] == (0, "1 definition checked, no fault found.\n")


def test_doctor_reports_without_network(capsys, tmp_path):
    code, text, _ = call(capsys, "doctor", "--runs", tmp_path / "runs", "--json")
    findings = {finding["name"]: finding for finding in json.loads(text)}
    assert code == 0
    assert findings["torch"]["ok"]
    assert findings["results"]["ok"]
    assert not findings["hub"]["ok"]
    assert "HF_HUB_OFFLINE" in findings["hub"]["text"]
    assert not (tmp_path / "runs").exists()
    (tmp_path / "file").write_text("")
    code, text, _ = call(capsys, "doctor", "--runs", tmp_path / "file" / "runs")
    assert code == 1
    assert "MISSING" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["runn"], "No such command 'runn'"),
        (["run", "--model", MODEL], "Missing option '--tasks'"),
        (["run", "-m", MODEL, "-t", ","], "--tasks names none; `lad-eval ls tasks` lists them."),
        (["run", "-m", MODEL, "-t", TASK, "--methods", "ladd"], "Unknown method 'ladd'. Did you mean 'lad'"),
        (["run", "-m", MODEL, "-t", "scenes_random_n5"], "Unknown task 'scenes_random_n5'. Did you mean"),
        (["run", "-m", "random:qwen", "-t", TASK], "Unknown model 'random:qwen'. Did you mean"),
        (["run", "-m", MODEL, "-t", TASK, "--limit", "0"], "--limit"),
        (["run", "-m", MODEL, "-t", TASK, "--limitt", "3"], "No such option: --limitt"),
        (["run", "-m", MODEL, "-t", TASK, "--overwrite", "maybe"], "'never', 'missing', 'always'"),
        (["run", "-m", MODEL, "-t", TASK, "--batch-size", "none"], "batch size must be a positive whole number or 'auto'"),
        (["run", "-m", MODEL, "-t", TASK, "--dtype", "int8"], "Unknown dtype 'int8'"),
        (["run", "-m", MODEL, "-t", TASK, "--device", "tpu"], "Unknown device 'tpu'"),
        (["run", "-m", MODEL, "-t", TASK, "--attn", "fast"], "Unknown attention implementation 'fast'"),
        (["ls", "taks"], "'taks' is not one of 'tasks', 'methods', 'models'"),
        (["score", "/no/such/run"], "There is no run in /no/such/run"),
        (["leaderboard", "--runs", "/no/such/runs"], "There is no finished run in /no/such/runs"),
        (["compare", "/no/such/run"], "There is no run in /no/such/run"),
        (["validate", "/no/such/tasks"], "No such file or folder"),
    ],
)
def test_faults_are_one_line_and_exit_2(capsys, tmp_path, monkeypatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    assert text in fails(capsys, *arguments)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("lad(topk=4)", "lad has no parameter 'topk'"),
        ("ladd(top_k=4)", "Unknown method 'ladd'"),
        ("lad(top_k=0)", "top_k of lad must be 'all' or a whole number of at least 1"),
        ("lad(layers=0-99)", "reach past the last layer"),
        ("vanilla", "'vanilla' sets no parameter: write method(parameter=value)"),
        ("lad.top_k=1", "'lad.top_k=1' is not the form of parameters: write 'lad(top_k=1)'"),
    ],
)
def test_score_refuses_what_no_method_has(capsys, results, setting, text):
    assert text in fails(capsys, "score", results[0], "--set", setting)


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        (
            "study pruning --model openai:served",
            "(`lad-eval study pruning` has no --base-url; that is an option of `lad-eval run`.)",
        ),
        ("run --model openai:served --tasks scenes_random_n2", "OPENAI_BASE_URL."),
        ("demo --model openai:served", "OPENAI_BASE_URL."),
    ],
)
def test_an_error_that_names_an_option_of_run_says_so_where_a_command_lacks_it(words, ending, capsys, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert invoke(words.split()) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: A model behind a server needs its address: --base-url")
    assert line.endswith(ending)


def test_a_model_folder_without_processor_is_named(capsys, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    error = fails(capsys, "run", "-m", folder, "-t", TASK, "--runs", tmp_path / "out")
    assert "lacks the image processor (preprocessor_config.json" in error


def test_data_that_is_missing_is_named(capsys, tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text("source: folder\ncandidates: 4\ndata: {images: ., captions: captions.csv}\n")
    monkeypatch.setattr(execute, "load_model", lambda name, **options: object())
    assert "captions.csv" in fails(capsys, "run", "-m", MODEL, "-t", tmp_path / "mine.yaml", "--runs", tmp_path / "out")


def test_the_same_line_is_said_once_a_command():
    code = (
        "import logging; from lad_eval.cli.console import log_to_stderr\n"
        "log_to_stderr(quiet=True); log = logging.getLogger('lad_eval.x')\n"
        "for text in ('too few', 'too few', 'other', 'too few'): log.warning('%s images', text)\n"
        "for task in 'abc': log.warning('run %s again', task, extra={'once': 'again'})\n"
        "log_to_stderr(quiet=True); log.warning('too few images')"  # as the next command of one process does
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    lines = ["too few images", "other images", "run a again", "too few images"]
    assert told.splitlines() == [f"warning: {line}" for line in lines]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["ls", "methods"],
        ["score", "RUN"],
        ["compare", "RUN", "--methods", "lad,vanilla"],
        *(["leaderboard", "--runs", "RUN", "--format", form] for form in ("rich", "md", "latex", "html", "csv", "json")),
        ["export", "RUN", "--format", "model-card"],
        ["run", "-m", MODEL, "-t", TASK, "--methods", "vanilla,lad", "--limit", "3", "--runs", "RUN", "--overwrite", "never"],
        ["run", "-m", "größe", "-t", "ö\u202e.yaml"],
    ],
    ids=" ".join,
)
def test_no_command_needs_a_console_that_knows_more_than_ascii(results, monkeypatch, model, words, encoding):
    monkeypatch.setattr(execute, "load_model", lambda name, **options: model)
    consoles = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
    for name, console in zip(("stdout", "stderr"), consoles, strict=True):
        monkeypatch.setattr(sys, name, console)
    code = invoke([str(results[0]) if word == "RUN" else word for word in words])
    assert code == (2 if "größe" in words else 0)
    for console in consoles:
        console.flush()
    out, err = (console.buffer.getvalue().decode(encoding) for console in consoles)
    assert out or err
    assert not [sign for sign in out + err if ord(sign) < 32 and sign not in "\n\r\t"]


def test_ctrl_c_is_exit_130_and_one_line(capsys, monkeypatch, tmp_path):
    def stop(*_, **__):
        raise execute.Interrupted("Interrupted: 3 of 16 answers.")

    monkeypatch.setattr("lad_eval.evaluation.run_tasks", stop)
    assert call(capsys, "run", "-m", MODEL, "-t", TASK, "--runs", tmp_path) == (130, "", "Interrupted: 3 of 16 answers.\n")
    monkeypatch.setattr("lad_eval.evaluation.run_tasks", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert call(capsys, "run", "-m", MODEL, "-t", TASK, "--runs", tmp_path) == (130, "", "Interrupted.\n")


def test_compare_against_one_method(capsys, results):
    pairs = json.loads(call(capsys, "compare", results[0], "--against", "vanilla", "--json")[1])
    assert [pair["second"] for pair in pairs] == ["vanilla"] * (len(METHODS) - 1)
    assert "Did you mean 'vanilla'?" in fails(capsys, "compare", results[0], "--against", "vanila")
    assert "--against goes with one run" in fails(capsys, "compare", results[0], results[0], "--against", "vanilla")


def test_every_command_says_what_comes_next(capsys, results, tmp_path):
    for arguments in (
        ["compare", results[0], "--against", "vanilla"],
        ["figure", results[0], "--out", tmp_path / "a.svg"],
        ["report", "--runs", results[0], "--out", tmp_path / "r.html"],
        ["score", results[0]],
    ):
        code, _, err = call(capsys, *arguments)
        assert code == 0
        assert "next: " in err


def test_full_size_random_models_say_what_memory_they_need(capsys):
    lines = call(capsys, "ls", "models")[1].splitlines()
    (big,) = [line for line in lines if line.startswith("random:internvl3-8b ")]
    assert big.endswith("full size: about 16 GB of memory in bfloat16, 32 GB in float32")
    (small,) = [line for line in lines if line.startswith("random:molmo2 ")]
    assert small.endswith("random weights, tiny")


def test_validate_names_what_prepares_the_data_first(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("LAD_EVAL_DATA", str(tmp_path))
    code, _, err = call(capsys, "validate", "coco_random_n4")
    assert code == 0
    assert "next: lad-eval data prepare coco --root <folder>, then lad-eval run --model " in err
