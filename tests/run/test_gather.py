import json

import pytest

from lad_eval.errors import UserError
from lad_eval.report.tables import render
from lad_eval.run.gather import gather
from tests.report.test_tables import METRICS


def write(out, run, **changes):
    folder = out / "model" / "task" / run
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps({**METRICS, "run": run, **changes}))


def test_rows_stand_by_task_then_model_and_whole_tasks_before_parts(tmp_path):
    write(tmp_path, "1", model="b", task="y", limit=None)
    write(tmp_path, "2", model="a", task="y", limit=10)
    write(tmp_path, "3", model="a", task="y", limit=None)
    write(tmp_path, "4", model="z", task="x", limit=None)
    rows = [(row.task, row.model, row.limited) for row in gather(tmp_path) if row.method == "lad"]
    assert rows == [("x", "z", False), ("y", "a", False), ("y", "a", True), ("y", "b", False)]


def test_runs_that_look_alike_are_told_apart_by_their_hashes(tmp_path):
    write(tmp_path, "0123456789abcdef")
    write(tmp_path, "fedcba9876543210")
    write(tmp_path, "aaaaaaaaaaaaaaaa", model="other")
    assert {row.model for row in gather(tmp_path)} == {"m [012345]", "m [fedcba]", "other"}


def test_reported_figures_of_the_same_model_stand_below_ours_where_asked_for(tmp_path):
    told = {
        "Qwen2.5-VL-3B": {"lad": [94.94, 4.2, 84.3], "pride": [63.76, None, None]},
        "InternVL3-8B": {"lad": [94.84, 5.93, 80.7]},
    }
    write(tmp_path, "1", model="Qwen/Qwen2.5-VL-3B-Instruct", reported=told)
    write(tmp_path, "2", model="lad-tiny", reported=told)
    assert not [row for row in gather(tmp_path) if row.reported]
    rows = gather(tmp_path, reported=True)
    assert [(row.model, row.reported) for row in rows[2:4]] == [("Qwen2.5-VL-3B (reported)", True)] * 2
    assert [row.model for row in rows[4:]] == ["lad-tiny"] * 2
    lines = [line for line in render(rows, "md").splitlines() if "(reported)" in line]
    assert [cell.strip() for cell in lines[0].split("|")[2:-1]] == ["lad", "94.9", "–", "4.2", "84.3", "–", "–", "–"]
    assert "Qwen2.5-VL-3B (reported) · published elsewhere" in render(rows, "rich")


def test_runs_that_calibrate_elsewhere_are_told_apart_by_where(tmp_path):
    write(tmp_path, "1")
    write(tmp_path, "2", calibration={"transferred": True, "task": "flickr8k_random_n4"})
    write(tmp_path, "3", calibration={"transferred": False, "task": "t"}, task="other")
    rows = gather(tmp_path)
    assert {(row.model, row.task, row.calibrated_on) for row in rows} == {
        ("m", "t", None), ("m", "t", "flickr8k_random_n4"), ("m", "other", None),
    }  # fmt: skip
    text = render(rows, "md")
    assert text.split("### t")[1].count("| flickr8k_random_n4 |") == 2
    assert "Calibrated on" not in text.split("### t")[0]
    assert "t · m · calibrated on flickr8k_random_n4 · 20*" in render(rows, "rich")


def test_a_damaged_file_is_named(tmp_path):
    write(tmp_path, "1")
    (tmp_path / "model" / "task" / "1" / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"Cannot read .*metrics.json: it is no JSON"):
        gather(tmp_path)
