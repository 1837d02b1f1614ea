"""The leaderboard: what stands in a row and a column, what is refused, what is marked."""

import json
import logging

import numpy as np
import pandas as pd
import pytest

from lad_eval.errors import UserError
from lad_eval.files.documents import write_json
from lad_eval.report.leaderboard import Filters, gather_board
from lad_eval.run.folder.spec import digest_of
from lad_eval.run.folder.stored import load_run
from lad_eval.run.results import write_predictions

GOOD, FAIR, POOR = np.ones(40, bool), np.arange(40) < 37, np.arange(40) < 10


def figure(correct):
    share = correct.mean()
    return {
        "samples": len(correct), "permutations": 1, "unparsable": 0, "forward_passes": 1.0,
        "accuracy": {"value": 100 * share, "std": 0.0, "low": 0.0, "high": 100.0}, "rstd": {"value": 50 * (1 - share)},
        "consistency": {"value": 100.0},
    }  # fmt: skip


def write(out, run, answers, *, model="m", task="t", version=1, data="d", definition=None, prefix="s", **changes):
    """A finished run: what each method got right, Bool[S], under one order."""
    transferred = {"calibration": {"on": "u"}} if "calibration" in changes else {}
    spec = {
        "model": model, "fingerprint": {"number": run}, "task": task, "limit": changes.get("limit"),
        "definition": {"version": version, "prompt": definition, **transferred}, "digests": {"data": data},
    }  # fmt: skip
    run = digest_of(spec)
    folder = out / model.replace("/", "-") / task / run
    folder.mkdir(parents=True)
    metrics = {
        "model": model, "task": task, "run": run, "limit": None, "dtype": "float32", "attention_implementation": "sdpa",
        "candidates": 2, "methods": {name: figure(correct) for name, correct in answers.items()},
    } | changes  # fmt: skip
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "spec.json", spec)
    tables = [
        pd.DataFrame(
            {
                "method": name, "sample_id": [f"{prefix}{i:03}" for i in range(len(correct))], "permutation": 0, "order": "0 1",
                "gold_position": 0, "position": np.where(correct, 0, 1), "correct": correct, "log_proba": None,
            }
        )
        for name, correct in answers.items()
    ]  # fmt: skip
    write_predictions(pd.concat(tables), run, folder / "predictions.parquet")
    return folder


def rows(board):
    return [(line.model, line.method) for line in board.lines]


def test_a_row_a_model_and_method_a_column_a_task_the_best_first(tmp_path):
    write(tmp_path, "1", {"vanilla": POOR, "lad": GOOD}, model="a", task="x")
    write(tmp_path, "2", {"vanilla": POOR, "lad": FAIR}, model="a", task="y")
    write(tmp_path, "3", {"lad": GOOD}, model="b", task="y")
    board = gather_board(tmp_path)
    assert board.tasks == ("x", "y")
    assert rows(board) == [("a", "lad"), ("a", "vanilla"), ("b", "lad")]  # what lacks a task stands below
    assert [line.cells.keys() for line in board.lines] == [{"x", "y"}, {"x", "y"}, {"y"}]
    assert board.lines[0].cells["y"].accuracy == 92.5


def test_sorted_by_anything_that_is_there(tmp_path):
    write(tmp_path, "1", {"lad": FAIR, "vanilla": POOR}, model="b", task="x")
    write(tmp_path, "2", {"lad": GOOD}, model="a", task="y")
    write(tmp_path, "3", {"lad": POOR}, model="b", task="y")
    assert rows(gather_board(tmp_path, sort="model")) == [("a", "lad"), ("b", "lad"), ("b", "vanilla")]
    assert rows(gather_board(tmp_path, sort="method"))[-1] == ("b", "vanilla")
    assert rows(gather_board(tmp_path, sort="y")) == [("a", "lad"), ("b", "lad"), ("b", "vanilla")]
    assert rows(gather_board(tmp_path, sort="x:rstd")) == [("b", "lad"), ("b", "vanilla"), ("a", "lad")]
    with pytest.raises(UserError, match=r"Unknown sort 'accurcy'. Did you mean 'accuracy'"):
        gather_board(tmp_path, sort="accurcy")


def test_filters_choose_and_a_filter_that_fits_nothing_is_a_fault(tmp_path):
    write(tmp_path, "1", {"vanilla": POOR, "lad": GOOD}, model="org/a", task="x_n4")
    write(tmp_path, "2", {"vanilla": POOR, "lad": FAIR}, model="org/a", task="x_n8", limit=40)
    write(tmp_path, "3", {"lad": GOOD}, model="b", task="x_n4")
    assert rows(gather_board(tmp_path, Filters(models=("org/*",), methods=("l*",), tasks=("*_n4",)))) == [("org/a", "lad")]
    assert rows(gather_board(tmp_path, Filters(models=("org/a",), tasks=("*_n8",))))[0] == ("org/a (first 40)", "lad")
    with pytest.raises(UserError, match=r"No finished run in .* fits --model c --tasks x_n4; "):
        gather_board(tmp_path, Filters(models=("c",), tasks=("x_n4",)))
    with pytest.raises(UserError, match="There is no finished run in"):
        gather_board(tmp_path / "nowhere")


def test_runs_are_chosen_by_their_setup_even_where_they_are_named_apart_by_something_else(tmp_path):
    write(tmp_path, "1", {"lad": GOOD}, model="a", limit=40)
    write(tmp_path, "2", {"lad": GOOD}, model="a", dtype="bfloat16", limit=8)
    assert rows(gather_board(tmp_path, Filters(models=("*bfloat16*",)))) == [("a (first 8)", "lad")]
    assert rows(gather_board(tmp_path, Filters(models=("a ?float32?",)))) == [("a (first 40)", "lad")]


@pytest.mark.parametrize(
    ("changes", "said", "mark"),
    [
        ({"dtype": "bfloat16"}, "dtype: bfloat16, float32", "bfloat16"),
        ({"attention_implementation": "eager"}, "attention implementation: eager, sdpa", "eager"),
        ({"version": 2}, "task version: version 1, version 2", "version 2"),
        ({"definition": "other"}, "task definition: definition [0-9a-f]{6}, definition [0-9a-f]{6}", "definition "),
        ({"data": "e"}, "data: data d, data e", "data e"),
    ],
)
def test_what_must_not_be_compared_is_refused_or_marked(tmp_path, changes, said, mark):
    write(tmp_path, "1", {"lad": GOOD, "vanilla": POOR}, model="a")
    write(tmp_path, "2", {"lad": FAIR, "vanilla": POOR}, model="b", **changes)
    with pytest.raises(UserError, match=rf"^t was run in ways that must not be compared in one column \({said}\); choose with"):
        gather_board(tmp_path)
    assert not gather_board(tmp_path, Filters(models=("b",))).marks
    board = gather_board(tmp_path, allow_mixed=True)
    assert any(text.startswith(mark) for text in board.marks.values())
    assert len({line.cells["t"].mark for line in board.lines}) == len(board.marks) == 2
    assert [line.model for line in board.lines if line.cells["t"].best] == ["a", "b"]  # each is tested among its own


def test_different_columns_may_differ(tmp_path):
    write(tmp_path, "1", {"lad": GOOD}, task="x")
    write(tmp_path, "2", {"lad": GOOD}, task="y", version=2)
    assert not gather_board(tmp_path).marks


def test_runs_that_look_alike_are_told_apart(tmp_path):
    one, other = (write(tmp_path, name, {"lad": GOOD}).name[:6] for name in "ab")
    assert {line.model for line in gather_board(tmp_path).lines} == {f"m [{one}]", f"m [{other}]"}
    write(tmp_path, "2", {"lad": GOOD}, dtype="bfloat16")
    assert rows(gather_board(tmp_path, Filters(models=("*bfloat16*",)))) == [("m [bfloat16]", "lad")]
    names = {line.model for line in gather_board(tmp_path, allow_mixed=True).lines}
    assert names == {f"m [float32] [{one}]", f"m [float32] [{other}]", "m [bfloat16]"}


def test_parts_and_transferred_calibration_have_rows_of_their_own(tmp_path):
    write(tmp_path, "1", {"lad": GOOD})
    write(tmp_path, "2", {"lad": GOOD[:10]}, limit=10)
    write(tmp_path, "3", {"lad": GOOD}, calibration={"task": "u", "transferred": True})
    assert {line.model for line in gather_board(tmp_path).lines} == {"m", "m (first 10)", "m (calibrated on u)"}


def test_only_what_was_asked_the_same_is_tested_together(tmp_path):
    write(tmp_path, "1", {"vanilla": POOR, "lad": GOOD, "pride": FAIR}, model="a")
    write(tmp_path, "2", {"lad": FAIR, "vanilla": POOR}, model="b", prefix="other")
    found = {(line.model, line.method): line.cells["t"] for line in gather_board(tmp_path).lines}
    assert [name for name, cell in found.items() if cell.best] == [("a", "lad"), ("b", "lad")]
    assert [name for name, cell in found.items() if cell.tied] == [("a", "pride")]  # 3 discordant samples: p = 1 / 4
    assert found["a", "pride"].significance.p_holm == pytest.approx(0.25)
    assert found["a", "vanilla"].significance.p_holm == pytest.approx(2 * 2 / 2**30)


def test_published_figures_stand_below_and_are_never_tested(tmp_path):
    write(
        tmp_path,
        "1",
        {"lad": POOR},
        model="org/M-Instruct",
        reported={"M": {"lad": [94.9, 4.2, None]}, "other": {"lad": [1, 1, 1]}},
    )
    assert rows(gather_board(tmp_path)) == [("org/M-Instruct", "lad")]
    board = gather_board(tmp_path, reported=True)
    assert rows(board) == [("org/M-Instruct", "lad"), ("M (reported)", "lad")]
    assert (board.lines[1].reported, board.lines[1].cells["t"].accuracy, board.lines[1].cells["t"].significance) == (
        True,
        94.9,
        None,
    )


def damage_json(path, **changes):
    """Another value in a document, its checksum left as it is; a value of None takes the key away."""
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in document.items() if key not in changes or value is not None}))


def unsealed(path, **changes):
    """As `damage_json`, in a document of a version that wrote no checksum."""
    damage_json(path, checksum=None, **changes)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "predictions.parquet").write_bytes(b"PAR1"), "predictions.parquet is damaged, it cannot be read"),
        (lambda f: (f / "predictions.parquet").unlink(), "predictions.parquet is missing"),
        (lambda f: (f / "spec.json").write_text("{"), "spec.json (what was run): it is not JSON, so it is damaged"),
        (lambda f: damage_json(f / "spec.json", limit=3), "spec.json (what was run): it is not what was written"),
        (lambda f: unsealed(f / "spec.json", limit=3), "metrics.json and spec.json next to it are not of the same run"),
        (lambda f: unsealed(f / "spec.json", task=7), "spec.json (what was run): task is not as a run writes it"),
        (lambda f: (f / "metrics.json").write_text("[]"), "metrics.json (the run's figures): it is not a JSON object"),
        (lambda f: (f / "metrics.json").write_text("[" * 100000), "metrics.json (the run's figures): it is not JSON"),
        (lambda f: damage_json(f / "metrics.json", task="u"), "metrics.json (the run's figures): it is not what was written"),
        (lambda f: unsealed(f / "metrics.json", methods={}), "metrics.json (the run's figures): methods: "),
        (lambda f: unsealed(f / "metrics.json", candidates=1), "metrics.json (the run's figures): candidates: "),
        (
            lambda f: unsealed(f / "metrics.json", methods={"lad": figure(GOOD) | {"accuracy": {"value": 101}}}),
            "metrics.json (the run's figures): methods.lad.accuracy.value: ",
        ),
    ],
)
def test_a_damaged_run_is_named_in_one_line_and_the_others_are_shown(tmp_path, caplog, monkeypatch, damage, said):
    monkeypatch.setattr(logging.getLogger("lad_eval"), "propagate", True)
    damage(write(tmp_path, "1", {"lad": GOOD}))
    write(tmp_path, "2", {"lad": POOR}, model="other")
    assert rows(gather_board(tmp_path)) == [("other", "lad")]
    (said_once,) = {record.getMessage() for record in caplog.records}
    assert said in said_once
    assert "again to rewrite it. Until then the run is left out." in said_once
    assert "\n" not in said_once


@pytest.mark.parametrize(
    ("column", "row", "value", "said"),
    [
        ("gold_position", 3, 2, "a position is not one of 2"),
        ("position", 3, 5, "a position is not one of 2"),
        ("position", 3, 1, "its columns contradict each other"),
        ("order", 3, "0 0", "an order is not a permutation of 2 images"),
        ("order", 3, "0 x", "a column has values of another type"),
    ],
)
def test_predictions_without_a_digest_are_checked_value_by_value(tmp_path, caplog, monkeypatch, column, row, value, said):
    monkeypatch.setattr(logging.getLogger("lad_eval"), "propagate", True)
    path = write(tmp_path, "1", {"lad": GOOD}) / "predictions.parquet"
    table = pd.read_parquet(path)
    table.to_parquet(path)  # as earlier versions wrote it
    assert rows(gather_board(tmp_path)) == [("m", "lad")]
    table.loc[row, column] = value
    table.to_parquet(path)
    with pytest.raises(UserError, match="There is no finished run in"):
        gather_board(tmp_path)
    assert said in caplog.text


def test_predictions_of_another_run_are_not_taken(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("lad_eval"), "propagate", True)
    one, other = write(tmp_path, "1", {"lad": GOOD}), write(tmp_path, "2", {"lad": POOR}, model="other")
    (one / "predictions.parquet").replace(other / "predictions.parquet")
    write(tmp_path, "3", {"lad": POOR}, model="third")
    assert rows(gather_board(tmp_path)) == [("third", "lad")]
    assert "predictions.parquet is missing" in caplog.text
    assert "predictions.parquet is of another run" in caplog.text


def test_predictions_that_answer_an_order_twice_are_not_taken(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("lad_eval"), "propagate", True)
    broken = load_run(write(tmp_path, "1", {"lad": GOOD}))
    answers = broken.predictions()
    write_predictions(pd.concat([answers, answers.iloc[:1]]), broken.metrics["run"], broken.path / "predictions.parquet")
    write(tmp_path, "2", {"lad": POOR}, model="other")
    assert rows(gather_board(tmp_path)) == [("other", "lad")]
    assert "predictions.parquet is damaged: a method lacks an order of a sample, or answers one twice" in caplog.text


def test_runs_that_a_study_made_are_shown_when_asked_for(tmp_path):
    write(tmp_path, "1", {"lad": GOOD}, model="a", study="lad")
    with pytest.raises(UserError, match=r"no run of your own in .*, and 1 that `lad-eval study` made; --studies shows"):
        gather_board(tmp_path, studies=False)
    write(tmp_path, "2", {"lad": GOOD}, model="b")
    assert rows(gather_board(tmp_path, studies=False)) == [("b", "lad")]
    assert rows(gather_board(tmp_path, studies=True)) == [("a", "lad"), ("b", "lad")]


def test_the_part_that_was_asked_is_a_field_of_its_own(tmp_path):
    write(tmp_path, "1", {"lad": GOOD}, model="a", limit=40)
    (line,) = gather_board(tmp_path).lines
    assert (line.model, line.name, line.limit, line.calibrated_on) == ("a (first 40)", "a", 40, None)
