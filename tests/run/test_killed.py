"""A worker killed under torchrun's own agent: nothing that was answered is lost, and the figures are those of one process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lad_eval.run.execute import run_tasks
from tests.run.conftest import METHODS, MODEL, only_run, settings, to_rounding

TASK, LIMIT = "scenes_random_n4", 30
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds workers in /proc"),
    pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning"),
]


def start(out, restarts):
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        str(restarts),
    ]
    words = ["-m", "lad_eval", "run", "-m", MODEL, "-t", TASK, "--limit", str(LIMIT), "--batch-size", "1", "--device", "cpu"]
    words += ["--methods", ",".join(METHODS)]
    return subprocess.Popen(
        [*torchrun, *words, "--runs", str(out), "--json", "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def kill_when_it_works(agent, out, rank):
    """Kills the worker of a rank once it has stored some rows; returns how many rows all had stored then."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and agent.poll() is None:
        if any(_lines(path) > 3 for path in Path(out).rglob(f"evidence.rank{rank}.jsonl")):
            os.kill(_worker(agent.pid, rank), signal.SIGKILL)
            time.sleep(0.5)
            return sum(_lines(path) - 1 for path in Path(out).rglob("evidence.rank*.jsonl"))
        time.sleep(0.02)
    agent.kill()
    raise AssertionError(f"the worker stored nothing: {agent.communicate()}")


def _lines(path):
    return path.read_bytes().count(b"\n")


def _worker(agent, rank):
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environment = (place / "environ").read_bytes().split(b"\0")
            parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if parent == str(agent) and f"RANK={rank}".encode() in environment:
            return int(place.name)
    raise AssertionError("the worker is gone")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The figures of one process."""
    rows = run_tasks(settings(tmp_path_factory.mktemp("alone"), tasks=(TASK,), limit=LIMIT, device="cpu"))
    return [row.as_dict() for row in rows]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_next_call_goes_on_where_the_killed_one_was(tmp_path, counted, alone, rank):
    agent = start(tmp_path, restarts=0)
    stored = kill_when_it_works(agent, tmp_path, rank)
    _, err = agent.communicate(timeout=120)
    assert agent.returncode != 0, err
    model = counted()
    rows = run_tasks(settings(tmp_path, tasks=(TASK,), limit=LIMIT))
    assert [row.as_dict() for row in rows] == to_rounding(alone)
    assert stored > 0
    assert len(model.asked) <= LIMIT * (5 + 16) + 20 - stored
    assert [path.name for path in only_run(tmp_path).glob("evidence*")] == ["evidence.parquet"]


def test_the_agent_starts_the_workers_again_and_they_go_on(tmp_path, alone):
    agent = start(tmp_path, restarts=1)
    stored = kill_when_it_works(agent, tmp_path, 1)
    out, err = agent.communicate(timeout=300)
    assert agent.returncode == 0, err
    assert json.loads(out) == to_rounding(alone)
    session = json.loads((only_run(tmp_path) / "metrics.json").read_text())["session"]
    assert 0 < session["answered"] <= len(METHODS) * 10_000 - stored
