"""`lad_eval.evaluate`, the one call that the command line goes through."""

import json

import pytest

import lad_eval
from lad_eval.cli.main import invoke
from lad_eval.errors import UserError

MODEL = "random:qwen2.5-vl"
TASKS = ["scenes_random_n2", "scenes_random_n4"]
METHODS = ["vanilla", "lad"]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    return lad_eval.evaluate(
        MODEL, ["scenes_random_n2", "scenes_random_n4"], methods="vanilla,lad".split(","), limit=3, runs=runs
    )


def test_figures_are_those_of_the_command_line(result, capsys):
    runs = next(iter(result.folders.values())).parents[2]
    tasks = "scenes_random_n2,scenes_random_n4"
    assert (
        invoke(["run", "-m", MODEL, "-t", tasks, "--methods", "vanilla,lad", "--limit", "3", "--runs", str(runs), "--json", "-q"])
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert printed == [row.as_dict() for row in result.rows]
    assert json.loads(result.table("json")) == printed


def test_a_frame_has_a_row_for_each_method_and_task(result):
    frame = result.to_frame()
    assert list(zip(frame["task"], frame["method"], strict=True)) == [(task, method) for task in TASKS for method in METHODS]
    assert ((frame["accuracy_low"] <= frame["accuracy"]) & (frame["accuracy"] <= frame["accuracy_high"])).all()


def test_evidence_holds_every_request_by_task(result):
    evidence = result.evidence
    assert [evidence[task].n_candidates for task in TASKS] == [2, 4]
    assert evidence["scenes_random_n2"].attention is not None


def test_methods_are_compared_on_one_task(result):
    (pair,) = result.compare("scenes_random_n4", against="vanilla")
    assert {pair.first, pair.second} == {"vanilla", "lad"}
    with pytest.raises(UserError, match=r"Name a task: this result holds scenes_random_n2, scenes_random_n4\."):
        result.compare()
    with pytest.raises(UserError, match="'other' was not run"):
        result.compare("other")


def test_the_report_is_one_page(result, tmp_path):
    written = result.report(tmp_path / "page.html", pictures=1)
    assert written.runs == 2
    assert (tmp_path / "page.html").read_text().count("scenes_random_n4") > 0


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"tasks": "scenes_random_n44"}, "Did you mean"),
        ({"methods": "ladd"}, "Did you mean"),
        ({"model": "lad-tinny"}, "lad-tiny"),
    ],
)
def test_wrong_names_are_one_line(changed, text, tmp_path):
    asked = {"model": MODEL, "tasks": "scenes_random_n4", "methods": "lad", **changed}
    with pytest.raises(UserError, match=text):
        lad_eval.evaluate(**asked, runs=tmp_path)


def test_a_table_form_that_does_not_exist_is_named(result):
    with pytest.raises(UserError, match="Unknown format 'html'"):
        result.table("html")
