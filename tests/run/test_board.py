"""The leaderboard: what stands in a row and a column, what is refused, what is marked."""

import json

import numpy as np
import pandas as pd
import pytest

from lad_eval.errors import UserError
from lad_eval.run.board import Filters, gather_board

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
    folder = out / model.replace("/", "-") / task / run
    folder.mkdir(parents=True)
    metrics = {
        "model": model, "task": task, "run": run, "limit": None, "dtype": "float32", "attention_implementation": "sdpa",
        "methods": {name: figure(correct) for name, correct in answers.items()},
    } | changes  # fmt: skip
    transferred = {"calibration": {"on": "u"}} if "calibration" in changes else {}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "spec.json").write_text(
        json.dumps({"definition": {"version": version, "prompt": definition, **transferred}, "digests": {"data": data}})
    )
    tables = [
        pd.DataFrame(
            {
                "method": name, "sample_id": [f"{prefix}{i:03}" for i in range(len(correct))], "permutation": 0, "order": "0 1",
                "gold_position": 0, "position": np.where(correct, 0, 1), "correct": correct,
            }
        )
        for name, correct in answers.items()
    ]  # fmt: skip
    pd.concat(tables).to_parquet(folder / "predictions.parquet")


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
    with pytest.raises(UserError, match=rf"^t was asked in ways that must not be compared in one column \({said}\); choose with"):
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
    write(tmp_path, "0123456789abcdef", {"lad": GOOD})
    write(tmp_path, "fedcba9876543210", {"lad": GOOD})
    assert {line.model for line in gather_board(tmp_path).lines} == {"m [012345]", "m [fedcba]"}
    write(tmp_path, "2", {"lad": GOOD}, dtype="bfloat16")
    assert rows(gather_board(tmp_path, Filters(models=("*bfloat16*",)))) == [("m [bfloat16]", "lad")]
    names = {line.model for line in gather_board(tmp_path, allow_mixed=True).lines}
    assert names == {"m [float32] [012345]", "m [float32] [fedcba]", "m [bfloat16]"}


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
    assert found["a", "pride"].standing.p_holm == pytest.approx(0.25)
    assert found["a", "vanilla"].standing.p_holm == pytest.approx(2 * 2 / 2**30)


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
    assert (board.lines[1].reported, board.lines[1].cells["t"].accuracy, board.lines[1].cells["t"].standing) == (True, 94.9, None)


def test_a_damaged_run_is_named(tmp_path):
    write(tmp_path, "1", {"lad": GOOD})
    (tmp_path / "m" / "t" / "1" / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"Cannot read .*predictions.parquet"):
        gather_board(tmp_path)
    (tmp_path / "m" / "t" / "1" / "spec.json").write_text("{")
    with pytest.raises(UserError, match=r"Cannot read .*spec.json: it is no JSON"):
        gather_board(tmp_path)
