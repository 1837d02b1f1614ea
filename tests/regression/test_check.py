"""Baselines: an ordinary rerun passes, and what moves answers or questions does not."""

import json
import re

import numpy as np
import pytest

from lad_eval.cli.main import invoke
from lad_eval.regression import evidence as check_evidence
from lad_eval.regression.baseline import read_baseline
from lad_eval.regression.check import check, replay, write
from lad_eval.regression.text import Rule, result_as_text
from lad_eval.run import execute
from lad_eval.tasks.prompts import PARTS
from tests.regression.baselines import QUIET, change, define, figure, kinds

pytestmark = pytest.mark.usefixtures("loaded_once")


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
