"""A run under a pruner whose trend is learned: what it says, stores and uses again."""

from __future__ import annotations

import json
import re

from PIL import Image

from lad_eval.attention.interventions.learned import LearnedState
from lad_eval.attention.pruning.trend import Trend
from lad_eval.cli.main import invoke


def test_a_run_says_what_its_trend_is_worth_and_stores_it(tmp_path, capsys):
    command = ["run", "-m", "lad-tiny", "-t", "scenes_random_n4", "--limit", "2", "--runs", str(tmp_path), "-q"]
    methods = "fastv(keep=0.25)+vanilla,fastv(keep=0.25, trend=exp)+lad"
    assert invoke([*command, "--methods", methods]) == 0
    out = capsys.readouterr().out
    assert "fastv(keep=0.25, trend=exp): late tokens are preferred (sigma " in out
    assert "at least 100 are advised." not in out
    (stored,) = tmp_path.rglob("learned.fastv.safetensors")
    state = LearnedState.load(stored, "fastv")
    trend = Trend.of_arrays(state.arrays)
    assert (trend.kind, trend.requests, trend.curve((16, 16, 16, 16)).shape) == ("exp", 100, (64,))
    metrics = [json.loads(path.read_text()) for path in tmp_path.rglob("metrics.json")]
    assert any("late tokens are preferred" in note for one in metrics for note in one["notes"])
    assert {one["counts"]["calibration_samples"] for one in metrics} == {25}, "the decision learned from 5 of them"
    assert [m["methods"]["fastv(keep=0.25, trend=exp)+lad"]["calibration_passes"] for m in metrics] == [120]

    written = stored.stat().st_mtime_ns
    assert invoke([*command, "--methods", methods]) == 0
    assert stored.stat().st_mtime_ns == written, "learned once"
    assert "late tokens are preferred" in capsys.readouterr().out


def test_a_run_says_where_there_is_no_ramp(tmp_path, capsys):
    """The embedded model's upper layers look for the right picture, wherever it stands."""
    command = ["run", "-m", "lad-tiny", "-t", "scenes_random_n4", "--limit", "1", "--runs", str(tmp_path), "-q"]
    assert invoke([*command, "--methods", "fastv(keep=0.25, layer=5, trend=exp)+vanilla"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"fastv\(keep=0\.25, layer=5, trend=exp\): no recency ramp \(R2 0\.0\d\)\.", out), out


def test_a_trend_of_a_split_that_ends_is_warned_of(tmp_path, capsys):
    """A folder has the calibration samples that its task asks for, and no more: every other picture is evaluated."""
    (tmp_path / "pictures").mkdir()
    for number in range(30):
        picture = Image.new("RGB", (24, 16), (8 * number, number, 255 - number))
        picture.save(tmp_path / "pictures" / f"{number:02}.png")
    captions = {f"{number:02}.png": f"picture {number}" for number in range(30)}
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    (tmp_path / "own.yaml").write_text(
        "source: folder\ncandidates: 4\npermutations: {count: 1}\ndata: {images: pictures, captions: captions.json}\n"
    )
    command = ["run", "-m", "lad-tiny", "-t", str(tmp_path / "own.yaml"), "--limit", "2", "--runs", str(tmp_path / "runs"), "-q"]
    assert invoke([*command, "--methods", "fastv(keep=0.25, trend=exp)+vanilla"]) == 0
    assert "The trend is fitted to 20 requests only; at least 100 are advised." in capsys.readouterr().out
