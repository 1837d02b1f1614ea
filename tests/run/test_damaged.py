"""A finished run one of whose files is damaged: `run` repairs it, and what only reads says so."""

import json
import logging
import shutil

import pytest

from lad_eval.cli.main import invoke
from lad_eval.errors import UserError
from lad_eval.run.execute import run_tasks
from lad_eval.run.results import rescore
from tests.run.conftest import TASK, only_run, settings

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")
METHODS = ("vanilla", "lad", "generate")
REQUESTS = 4 * 2 + 5 * 2
REPLIES = 4 * 2


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model):
    from tests.run.conftest import Counted

    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lad_eval.run.execute.load_model", lambda name, **options: Counted(model))
        rows = run_tasks(settings(out, methods=METHODS))
    return out, rows


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy to damage."""
    monkeypatch.setattr(logging.getLogger("lad_eval"), "propagate", True)
    shutil.copytree(finished[0], tmp_path / "out")
    return only_run(tmp_path / "out")


def another_digit(path, before, after):
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after, 1))


def flip_a_bit(path):
    """In the pages with the values; the second half of such a small file is about its columns."""
    content = bytearray(path.read_bytes())
    content[len(content) // 8] ^= 4
    path.write_bytes(bytes(content))


DAMAGE = {
    "metrics.json": lambda p: another_digit(p, b'"samples": 4', b'"samples": 5'),
    "spec.json": lambda p: another_digit(p, b'"limit": 4', b'"limit": 5'),
    "plan.json": lambda p: another_digit(p, b'"permutation_index": [\n    0', b'"permutation_index": [\n    1'),
    "predictions.parquet": flip_a_bit,
    "evidence.parquet": flip_a_bit,
    "replies.greedy-16.jsonl": lambda p: another_digit(p, b'"gold_position": 0', b'"gold_position": 1'),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_run_repairs_the_file_and_asks_only_what_was_lost(finished, run, counted, caplog, name):
    whole = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    DAMAGE[name](run / name)
    assert (run / name).read_bytes() != whole[name]
    asked = counted()
    assert run_tasks(settings(run.parents[2], methods=METHODS)) == finished[1]
    assert len(asked.asked) == {"evidence.parquet": REQUESTS, "replies.greedy-16.jsonl": 1}.get(name, 0)
    if name in ("predictions.parquet", "plan.json"):  # written anew by every call, and read by none before
        assert caplog.text.count("damaged") == 0
    else:
        assert name in caplog.text
    caplog.clear()
    asked.asked.clear()
    assert run_tasks(settings(run.parents[2], methods=METHODS)) == finished[1]
    assert (asked.asked, [r for r in caplog.records if r.levelno >= logging.WARNING]) == ([], [])


@pytest.mark.parametrize("name", [name for name in DAMAGE if name != "predictions.parquet"])
def test_score_refuses_in_one_line_with_the_file(run, name):
    DAMAGE[name](run / name)
    with pytest.raises(UserError) as caught:
        rescore(run)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value) or (name.startswith("replies") and "1 of 8 requests have no reply yet" in str(caught.value))


def test_what_was_set_aside_is_kept(run, counted):
    flip_a_bit(run / "evidence.parquet")
    damaged = (run / "evidence.parquet").read_bytes()
    counted()
    run_tasks(settings(run.parents[2], methods=METHODS))
    assert (run / "evidence.parquet.damaged").read_bytes() == damaged


def test_files_of_another_run_are_not_taken_for_this_ones(run, counted, tmp_path):
    counted()
    run_tasks(settings(tmp_path / "other", methods=METHODS, limit=3))
    other = only_run(tmp_path / "other")
    for name, said in (
        ("plan.json", "plan.json is of another run"),
        ("metrics.json", "metrics.json and spec.json next to it are not of the same run"),
        ("spec.json", "metrics.json and spec.json next to it are not of the same run"),
    ):
        content = (run / name).read_bytes()
        shutil.copy(other / name, run / name)
        with pytest.raises(UserError, match=said):
            rescore(run)
        (run / name).write_bytes(content)
    rescore(run)


def test_evidence_of_another_model_is_not_decided_from(run, counted, model, tmp_path):
    from lad_eval.evidence.files import EvidenceHeader, header_of, read_parquet, write_parquet

    path = run / "evidence.parquet"
    header, evidence = header_of(path), read_parquet(path)
    other = {**header.fingerprint, "dtype": "bfloat16"}
    write_parquet(path, evidence, EvidenceHeader(other, header.task, header.candidates, header.layers))
    with pytest.raises(UserError, match=r"holds answers of another model than .*spec\.json names: dtype is 'bfloat16'"):
        rescore(run)


def test_leaderboard_and_report_show_the_others(run, counted, capsys, tmp_path):
    counted()
    run_tasks(settings(run.parents[2], methods=METHODS, limit=3))
    another_digit(run / "metrics.json", b'"samples": 4', b'"samples": 5')
    capsys.readouterr()
    assert invoke(["leaderboard", "--runs", str(run.parents[2]), "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert {line["label"] for line in json.loads(out)} == {"random:qwen2.5-vl (first 3)"}
    assert err.count("\n") == 1
    assert f"{run}/metrics.json" in err
    page = tmp_path / "report.html"
    assert invoke(["report", str(run.parents[2]), "--out", str(page), "-q"]) == 0
    assert f"{run}/metrics.json" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8").count("<section") > 0


def test_a_run_that_is_not_finished_is_mentioned(run, capsys):
    (run / "metrics.json").unlink()
    assert invoke(["leaderboard", "--runs", str(run.parents[2])]) == 2
    err = capsys.readouterr().err.splitlines()
    assert f"1 run in {run.parents[2]} is not finished and left out, such as {run}" in err[0]
    assert err[1].startswith("error: There is no finished run in")
    assert TASK in err[0]
