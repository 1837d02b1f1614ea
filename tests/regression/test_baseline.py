"""The file of a baseline and its evidence: kept, replayed, damaged, of another machine."""

import json
import shutil
import subprocess
import sys

import pytest

from lad_eval.cli.main import invoke
from lad_eval.errors import Interrupted, UserError
from lad_eval.regression import evidence as check_evidence
from lad_eval.regression.baseline import read_baseline, write_baseline
from lad_eval.regression.check import CheckOptions, check, replay, write
from lad_eval.run import execute
from tests.regression.baselines import QUIET, change
from tests.run.conftest import Counted

pytestmark = pytest.mark.usefixtures("loaded_once")


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
    with pytest.raises(Interrupted, match=r"nothing is kept\. With --runs the same command would resume"):
        check(baseline, QUIET)
    kept = CheckOptions(model="lad-tiny", quiet=True, out=tmp_path / "runs")
    with pytest.raises(Interrupted, match=r"of 60 answers, all stored; the same command resumes from there"):
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
    with pytest.raises(UserError, match="has no evidence of task; name a folder of runs with --evidence"):
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
    assert {(f.kind, f.text) for f in check(baseline, QUIET).findings} == {("samples", "its samples or orders are different")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--write"], "--write needs --reason"),
        (["--write", "--reason", " "], "--write needs --reason"),
        (["--write", "--reason", "x", "--replay"], "cannot --replay"),
        (["--reason", "x"], "go with --write"),
        (["--replay", "--model", "other"], "only --evidence, --json and --quiet go with --replay"),
        (["--replay", "--max-drop", "0"], "has no tolerance"),
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
        ({"trust_remote_code": True}, "trust_remote_code is not an option of a baseline: a file must not enable code"),
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
