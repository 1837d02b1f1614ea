"""A run under a pruner whose trend is learned: what it says, stores and uses again."""

from __future__ import annotations

import json

from lad_eval.attention.interventions.learned import LearnedState
from lad_eval.attention.pruning.trend import Trend
from lad_eval.cli.main import invoke


def test_a_run_says_what_its_trend_is_worth_and_stores_it(tmp_path, capsys):
    command = ["run", "-m", "lad-tiny", "-t", "scenes_random_n4", "--limit", "2", "--runs", str(tmp_path), "-q"]
    methods = "fastv(keep=0.25)+vanilla,fastv(keep=0.25, trend=exp)+lad"
    assert invoke([*command, "--methods", methods]) == 0
    out = capsys.readouterr().out
    assert "fastv(keep=0.25, trend=exp): no recency ramp (R2 0.0" in out
    assert "fastv(keep=0.25, trend=exp): The trend is fitted to 20 requests only; at least 100 are advised." in out
    (stored,) = tmp_path.rglob("learned.fastv.safetensors")
    state = LearnedState.load(stored, "fastv")
    trend = Trend.of_arrays(state.arrays)
    assert (trend.kind, trend.requests, trend.curve((16, 16, 16, 16)).shape) == ("exp", 20, (64,))
    metrics = [json.loads(path.read_text()) for path in tmp_path.rglob("metrics.json")]
    assert any(note.endswith("at least 100 are advised.") for one in metrics for note in one["notes"])

    written = stored.stat().st_mtime_ns
    assert invoke([*command, "--methods", methods]) == 0
    assert stored.stat().st_mtime_ns == written, "learned once"
    assert "at least 100 are advised." in capsys.readouterr().out
