"""Baselines: an ordinary rerun passes, and what moves answers or questions does not."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lad_eval.cli.main import invoke
from lad_eval.errors import Interrupted, UserError
from lad_eval.methods import LAD
from lad_eval.regression import evidence as check_evidence
from lad_eval.regression.baseline import read_baseline, write_baseline
from lad_eval.regression.check import CheckOptions, Questions, check, replay, write
from lad_eval.regression.text import Rule, result_as_text
from lad_eval.run import execute
from lad_eval.tasks.prompts import PARTS
from tests.run.conftest import Counted

QUIET = CheckOptions(model="lad-tiny", quiet=True)
METHODS = ("vanilla", "lad")
TASK = """
source: scenes
version: {version}
setting: random
candidates: 4
samples: 8
identifiers: {identifiers}
data: {{seed: {seed}, calibration_samples: 5}}
"""


def define(path, *, version=1, identifiers="1..", seed=0):
    path.write_text(TASK.format(version=version, identifiers=identifiers, seed=seed))
    return path


@pytest.fixture(scope="module")
def tiny():
    from lad_eval.models.registry import load_model

    return load_model("lad-tiny", device="cpu")


@pytest.fixture(autouse=True)
def loaded_once(tiny, monkeypatch):
    monkeypatch.setattr(execute, "load_model", lambda name, **options: tiny)


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("baselines")
    task = define(folder / "task.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "load_model", lambda name, **options: tiny)
        write(folder / "tiny.json", QUIET, "the first", Questions((str(task),), METHODS, None))
    return folder


@pytest.fixture
def baseline(written, tmp_path):
    """A copy of the baseline, its evidence and its task, to break."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tiny.json"
    change(path, lambda document: document["tasks"]["task"].update(task=str(tmp_path / "task.yaml")))
    return path


@pytest.fixture
def broken_lad(monkeypatch):
    """LAD with a sign flipped: the expected bias is added instead of taken away."""
    right = LAD._scores
    monkeypatch.setattr(LAD, "_scores", lambda self, evidence: 2 * evidence.log_probs - right(self, evidence))


def change(path, how):
    document = json.loads(path.read_text())
    how(document)
    path.write_text(json.dumps(document))


def figure(result, method, name):
    """A method's change of one figure."""
    (found,) = [change for compared, change in result.changes if (compared.method, change.figure) == (method, name)]
    return found


def kinds(result):
    return {(finding.kind, finding.method) for finding in result.findings}


def test_an_ordinary_rerun_passes_and_nothing_flips(baseline):
    for result in (check(baseline, QUIET), replay(baseline)):
        assert result.passed
        assert not result.flips
        assert [(c.method, c.samples, c.orders, c.flipped) for c in result.compared] == [("vanilla", 8, 5, 0), ("lad", 8, 5, 0)]
        assert [change.figure for change in result.compared[0].changes] == ["accuracy", "consistency", "rstd"]
        assert all(c.difference == (0, 0, 0) and c.before == c.now and c.p_holm == 1 for _, c in result.changes)
        assert figure(result, "lad", "accuracy").now >= 90  # the test below has something to break


def test_a_baseline_names_no_folder_of_the_machine_that_wrote_it(baseline):
    kept = [path for path in check_evidence.evidence_folder(baseline).rglob("*.json") if path.is_file()]
    assert {"spec.json", "plan.json"} <= {path.name for path in kept}
    assert not [path for path in kept if str(baseline.parent) in path.read_text()]


@pytest.mark.usefixtures("broken_lad")
def test_a_flipped_sign_is_caught(baseline):
    again = replay(baseline)
    assert kinds(again) == {("flipped", "lad")}
    fresh = check(baseline, QUIET)
    assert kinds(fresh) == {("accuracy", "lad")}
    assert figure(fresh, "lad", "accuracy").difference.high < 0
    assert len(fresh.flips) == len(again.flips) == again.compared[1].flipped > 8
    assert {flip.method for flip in fresh.flips} == {"lad"}
    assert {"lost"} <= {flip.effect for flip in fresh.flips}


@pytest.mark.usefixtures("broken_lad")
def test_the_command_prints_the_samples_that_flipped_and_exits_with_1(baseline, capsys):
    assert invoke(["check", str(baseline), "--replay"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert re.match(r"FAILED: \d\d of 80 decisions flipped in 2 comparisons, decided again from stored evidence; one", lines[0])
    assert [re.split(r"  +", line) for line in (lines[1], lines[3])] == [
        ["Task", "Method", "Flipped"],
        ["task", "lad", f"{lines[0][8:10]} of 40"],
    ]
    assert set(lines[2]) == {"─"}
    assert lines[4] == "Examples:"
    example = r"  task, lad: scenes-random-n4-s0-test-\d{4} shown as [A-D]( [A-D]){3}: [A-D] -> [A-D], right is [A-D]: lost"
    assert all(re.fullmatch(example, line) for line in lines[5:10])
    assert re.fullmatch(r"  \.\.\. and \d+ more; --json lists them all", lines[10])
    assert len(lines) == 11
    assert invoke(["check", str(baseline), "--replay", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is False
    assert document["result"] == lines[0]
    assert len(document["flips"]) == document["compared"][1]["flipped"]
    assert document["flips"][0].keys() == {"task", "method", "sample", "order", "gold", "before", "now", "effect"}


@pytest.mark.parametrize("mode", [replay, lambda path: check(path, QUIET)], ids=["replay", "fresh"])
def test_a_changed_prompt_without_a_version_is_caught(baseline, monkeypatch, mode):
    parts = PARTS["retrieval"]
    monkeypatch.setitem(PARTS, "retrieval", parts._replace(question=parts.question.replace("best matches", "fits")))
    result = mode(baseline)
    assert not result.passed
    texts = [finding.text for finding in result.findings if finding.kind == "asked"]
    assert len(texts) == 2
    assert "its prompt changed without a new version (from 'Given 4 images" in texts[0]
    assert texts[1].startswith("its requests changed without a new version")


@pytest.mark.parametrize(
    ("changes", "what"), [({"identifiers": "A.."}, {"prompt", "definition", "requests"}), ({"seed": 1}, {"data", "requests"})]
)
def test_a_changed_task_or_other_data_without_a_version_is_caught(baseline, changes, what):
    define(baseline.with_name("task.yaml"), **changes)
    result = replay(baseline)
    assert {finding.text.split()[1] for finding in result.findings} == what
    assert {finding.kind for finding in result.findings} == {"asked"}


def test_a_new_version_asks_for_a_new_baseline(baseline):
    define(baseline.with_name("task.yaml"), version=2, identifiers="A..")
    assert [finding.text for finding in replay(baseline).findings] == [
        "its version is 2, the baseline's 1: renew the baseline, and say why"
    ]
    write(baseline, QUIET, "version 2 names candidates by letters")
    assert replay(baseline).passed
    assert check(baseline, QUIET).passed
    assert [renewal.reason for renewal in read_baseline(baseline).renewals] == [
        "the first",
        "version 2 names candidates by letters",
    ]


def test_data_that_is_elsewhere_is_a_note(baseline, monkeypatch):
    from lad_eval.errors import DataError

    def load(name):
        raise DataError("No pictures here.")

    monkeypatch.setattr(check_evidence, "load_task", load)
    result = replay(baseline)
    assert result.passed
    assert result.notes == ["task: only its definition and prompt were compared, not its data. No pictures here."]


def test_a_chat_template_that_changed_under_the_same_weights_is_caught(baseline):
    change(baseline, lambda d: d["tasks"]["task"]["fingerprint"].update(chat_template="another"))
    assert [f.text for f in check(baseline, QUIET).findings] == [
        "its chat template changed while the model's weights did not: renew the baseline, or undo the change"
    ]
    change(baseline, lambda d: d["tasks"]["task"]["fingerprint"].update(weights="an earlier checkpoint"))
    result = check(baseline, QUIET)
    assert result.passed
    assert "weights is 'an earlier checkpoint' and 'sha256:" in result.notes[0]


def lose(document, samples):
    """Takes vanilla's first answer to some samples away from a baseline."""
    for answers in list(document["tasks"]["task"]["answers"].values())[:samples]:
        answers["vanilla"] = "-" + answers["vanilla"][1:]


def test_replies_without_an_answer_are_compared_where_there_are_any(baseline, monkeypatch):
    change(baseline, lambda document: lose(document, 1))
    result = check(baseline, QUIET)
    assert result.passed
    assert figure(result, "vanilla", "unparsable").drop == -2.5
    assert [(flip.before, flip.sample) for flip in result.flips] == [(None, "scenes-random-n4-s0-test-0000")]
    assert {c.figure for c in result.compared[1].changes} == {"accuracy", "consistency", "rstd"}


def test_many_more_replies_without_an_answer_fail(baseline, monkeypatch):
    from lad_eval.regression import check as module

    grids = module._grids

    def silent(run, methods):
        found = grids(run, methods)
        whole = found["vanilla"]
        return {
            **found,
            "vanilla": whole._replace(chosen=np.full_like(whole.chosen, -1), predicted=np.full_like(whole.chosen, -1)),
        }

    monkeypatch.setattr(module, "_grids", silent)
    result = check(baseline, QUIET, Rule(level=0.9))
    assert ("unparsable", "vanilla") in kinds(result)
    assert figure(result, "vanilla", "unparsable").p_value == pytest.approx(2 / 2**8)


def test_a_gain_is_reported_and_passes(baseline, tiny, monkeypatch, broken_lad):
    write(baseline, QUIET, "made with a broken LAD")
    monkeypatch.undo()
    monkeypatch.setattr(execute, "load_model", lambda name, **options: tiny)
    for rule in (Rule(), Rule(max_drop=0)):
        result = check(baseline, QUIET, rule)
        assert figure(result, "lad", "accuracy").difference.low > 0
        assert not {finding for finding in result.findings if (finding.kind, finding.method) == ("accuracy", "lad")}
        assert [line for line in result_as_text(result).splitlines() if line.startswith("better: task, lad: accuracy ")]
    assert check(baseline, QUIET).passed


def test_a_baseline_too_small_for_the_largest_drop_says_so_first(baseline):
    result = check(baseline, QUIET, Rule(max_drop=3))
    assert result.passed
    first, *lines = result_as_text(result).splitlines()
    assert first.startswith("ok, with 1 warning: a drop of more than 3 points is excluded in 6 comparisons on 1 task. ")
    warning = "task: 8 samples are too few for --max-drop 3: a drop of up to 36.9 points may show on none of them"
    assert f"warning: {warning}" in lines
    assert not check(baseline, QUIET, Rule(max_drop=40)).warnings


def test_runs_elsewhere_can_be_replayed(baseline, tmp_path):
    check(baseline, CheckOptions(model="lad-tiny", quiet=True, out=tmp_path / "runs"))
    shutil.rmtree(check_evidence.evidence_folder(baseline))
    assert replay(baseline, tmp_path / "runs").passed
    with pytest.raises(UserError, match=r"There is no run of lad-tiny on task in .*nowhere to replay"):
        replay(baseline, tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"evidence.*task.evidence.parquet is missing; restore it, or leave --replay out"):
        replay(baseline)


def test_an_interrupted_check_keeps_what_it_was_told_to_keep(baseline, tiny, tmp_path, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    stopped = Counted(tiny, 1, interrupt)
    monkeypatch.setattr(execute, "load_model", lambda name, **options: stopped)
    with pytest.raises(Interrupted, match=r"nothing is kept\. With --runs the same command goes on"):
        check(baseline, QUIET)
    kept = CheckOptions(model="lad-tiny", quiet=True, out=tmp_path / "runs")
    with pytest.raises(Interrupted, match=r"of 60 answers, all kept; the same command goes on from there"):
        check(baseline, kept)
    first = len(stopped.asked)
    monkeypatch.setattr(execute, "load_model", lambda name, **options: resumed)
    resumed = Counted(tiny)
    assert check(baseline, kept).passed
    assert 0 < len(resumed.asked) < 60 < len(resumed.asked) + first


def test_evidence_of_another_baseline_is_refused(baseline):
    path = check_evidence.evidence_folder(baseline) / "task" / "evidence.parquet"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"evidence.parquet is not what .*tiny.json was made from; restore both"):
        replay(baseline)


def test_a_baseline_without_evidence_says_so(baseline):
    write(baseline, QUIET, "smaller", with_evidence=False)
    assert check(baseline, QUIET).passed
    with pytest.raises(UserError, match="keeps no evidence of task; name a folder of runs with --evidence"):
        replay(baseline)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda d: d.pop("renewals"), "renewals: Field required"),
        (lambda d: d.update(format=2), r"format: Input should be 1"),
        (lambda d: answer(d).pop("lad"), "tasks.task: sample '.*0000' has gold, vanilla, not gold, lad, vanilla"),
        (lambda d: answer(d).update(lad="0 1"), "the answers of lad are not equally many for all samples"),
        (lambda d: answer(d).update(lad="0 1 2 3 4"), r"the answers of lad must lie in 0..3"),
        (lambda d: answer(d).update(lad="0 1 2 3 x"), "damaged: tasks.task: "),
    ],
)
def test_a_damaged_baseline_is_one_line_with_the_place(baseline, how, said):
    change(baseline, how)
    with pytest.raises(UserError, match=said) as error:
        read_baseline(baseline)
    assert "\n" not in str(error.value)


def answer(document):
    return document["tasks"]["task"]["answers"]["scenes-random-n4-s0-test-0000"]


def test_a_baseline_reads_back_as_it_was_and_has_a_line_a_sample(baseline, tmp_path):
    read = read_baseline(baseline)
    write_baseline(tmp_path / "again.json", read)
    assert read_baseline(tmp_path / "again.json") == read
    lines = (tmp_path / "again.json").read_text().splitlines()
    assert sum("scenes-random-n4-s0-test-" in line for line in lines) == 8
    assert max(map(len, lines)) < 300


def test_other_samples_are_not_compared(baseline):
    change(baseline, lambda d: d["tasks"]["task"]["answers"].pop("scenes-random-n4-s0-test-0007"))
    assert {(f.kind, f.text) for f in check(baseline, QUIET).findings} == {("samples", "its samples or orders are others")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--write"], "--write needs --reason"),
        (["--write", "--reason", " "], "--write needs --reason"),
        (["--write", "--reason", "x", "--replay"], "cannot --replay"),
        (["--reason", "x"], "go with --write"),
        (["--replay", "--model", "other"], "only --evidence, --json and --quiet go with --replay"),
        (["--replay", "--max-drop", "0"], "knows no tolerance"),
        (["--write", "--reason", "x", "--max-drop", "3"], "--write makes a baseline"),
        (["--max-drop", "nan"], "--max-drop"),
        (["--max-drop", "-1"], "--max-drop"),
        (["--write", "--reason", "x", "--limit", "3"], "--methods and --limit need --tasks"),
        (["--replay"], "There is no baseline none.json; make one: `lad-eval check none.json --write"),
        (["--write", "--reason", "x", "-q"], "a new one needs --model and --tasks"),
    ],
)
def test_faults_of_the_user_are_no_failed_check(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke(["check", "none.json", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_a_replay_needs_no_torch(baseline):
    code = (
        "import sys; from lad_eval.cli.main import invoke\n"
        f"assert invoke(['check', {str(baseline)!r}, '--replay']) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "ok: 0 of 80 decisions flipped in 2 comparisons, decided again from stored evidence; one would have been noticed.\n"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trust_remote_code": True}, "trust_remote_code is not an option of a baseline: a file cannot have code run"),
        ({"trust_remote_code": 1}, "trust_remote_code is not an option of a baseline"),
        ({"foo": 1}, "options.foo is not an option of a baseline; there are dtype, attn, revision,"),
        ({"tasks": [1]}, "options.tasks is not an option of a baseline"),
        ({"model": "other"}, "options.model is not an option of a baseline"),
        ({"out": "/"}, "options.out is not an option of a baseline"),
        ({"overwrite": "always"}, "options.overwrite is not an option of a baseline"),
        ({"attn": "owner/kernel:attention"}, "damaged: options.attn: "),
        ({"dtype": "complex"}, "damaged: options.dtype: "),
        ({"seed": "1"}, "damaged: options.seed: "),
        ({"seed": -1}, "damaged: options.seed: "),
        ([], "damaged: options: "),
    ],
)
def test_options_of_a_baseline_are_few_and_none_of_them_runs_code(baseline, monkeypatch, capsys, options, said):
    def never(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(execute, "load_model", never)
    change(baseline, lambda document: document.update(options=options))
    assert invoke(["check", str(baseline)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err


def test_remote_code_is_run_where_the_command_line_says_so_and_never_written_down(baseline, tiny, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(execute, "load_model", lambda name, **options: asked.append(options) or tiny)
    assert invoke(["check", str(baseline), "--trust-remote-code", "--quiet"]) == 0
    assert invoke(["check", str(baseline), "--write", "--reason", "r", "--trust-remote-code", "--quiet"]) == 0
    assert [options["trust_remote_code"] for options in asked] == [True, True]
    assert json.loads(baseline.read_text())["options"]["trust_remote_code"] is False
    assert invoke(["check", str(baseline), "--quiet"]) == 0
    assert asked[-1]["trust_remote_code"] is False


def test_a_baseline_that_is_not_json_says_how_to_write_one(capsys, tmp_path):
    path = tmp_path / "b.json"
    path.write_text("{")
    assert invoke(["check", str(path), "--replay"]) == 2
    err = capsys.readouterr().err
    assert f"Cannot read {path} (the baseline): it is not JSON, so it is damaged. Restore it" in err
    assert f'`lad-eval check {path} --write --reason "..."' in err
