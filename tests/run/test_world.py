import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from lad_eval.errors import DataError, UserError
from lad_eval.evidence.store import read_evidence
from lad_eval.run.distributed import DistributedContext, FollowerError, RankError
from lad_eval.run.execute import run_tasks
from tests.run.conftest import METHODS, MODEL, only_run, settings, to_rounding

pytestmark = pytest.mark.slow

TASK = "scenes_random_n4"


@pytest.mark.parametrize(
    ("environment", "world"),
    [({}, DistributedContext(0, 1, 0)), ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, DistributedContext(3, 4, 1))],
)
def test_the_launcher_names_the_place(monkeypatch, environment, world):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert DistributedContext.from_environment() == world


@pytest.mark.parametrize("environment", [{"RANK": "4", "WORLD_SIZE": "4"}, {"RANK": "first"}, {"WORLD_SIZE": "0"}])
def test_what_is_no_place_is_refused(monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="does not name a process of a run; start it with `accelerate launch` or `torchrun`"):
        DistributedContext.from_environment()


@pytest.mark.parametrize("told", ["", "soon", "-1", "0", "nan", "inf", "1e12"])
def test_a_limit_of_the_start_that_is_no_time_is_refused(monkeypatch, told):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LAD_EVAL_RENDEZVOUS_SECONDS", told)
    with pytest.raises(UserError, match=r"LAD_EVAL_RENDEZVOUS_SECONDS=.* is not a number of seconds from 1 to 172800"):
        DistributedContext.from_environment().joined().__enter__()


def test_alone_an_error_passes_as_it_is():
    with pytest.raises(DataError, match="broken"), DistributedContext().barrier(fail_fast=True):
        raise DataError("broken")


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def _take_part(rank, port, what, told):
    """What a process of two does: rank 1 fails in some way, and both tell how they ended."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=str(rank), WORLD_SIZE="2")
    if what in ("has no leader", "is alone", "is slow"):
        os.environ["LAD_EVAL_RENDEZVOUS_SECONDS"] = "2"
    if (what, rank) in (("has no leader", 0), ("is alone", 1)):
        return
    world = DistributedContext.from_environment()
    try:
        with world.joined():
            with world.barrier(fail_fast=what == "leaves"):
                if rank == 1 and what in ("fails", "leaves"):
                    raise DataError("image 7 is broken")
                if rank == 1 and what == "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
                if rank == 1 and what == "is slow":
                    time.sleep(4)
            told.put((rank, "well", ""))
    except UserError as error:
        told.put((rank, type(error).__name__, str(error)))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="forks")
@pytest.mark.parametrize(
    ("what", "leader", "other"),
    [
        ("works", ("well", ""), ("well", "")),
        ("fails", (RankError.__name__, "Process 1 of 2 failed: image 7 is broken"), (FollowerError.__name__, "")),
        ("leaves", (RankError.__name__, "Another process of the run is gone"), (RankError.__name__, "Process 1 of 2: image 7")),
        ("dies", (RankError.__name__, "Another process of the run is gone"), None),
        # The limit of the start is not one of the evidence.
        ("is slow", ("well", ""), ("well", "")),
        ("has no leader", None, (UserError.__name__, "Process 1 of 2 did not find all others in 2 seconds: one of them ended")),
        ("is alone", (UserError.__name__, "Process 0 of 2 did not find all others in 2 seconds: one of them ended"), None),
    ],
)
def test_no_process_waits_for_ever_for_one_that_failed(what, leader, other):
    import torch.distributed  # noqa: F401 - imported once, before the fork

    context = multiprocessing.get_context("fork")
    told, port = context.Queue(), _free_port()
    processes = [context.Process(target=_take_part, args=(rank, port, what, told)) for rank in (0, 1)]
    for process in processes:
        process.start()
    heard = [told.get(timeout=60) for end in (leader, other) if end]
    ends = {rank: (kind, text) for rank, kind, text in heard}
    for process in processes:
        process.join(timeout=60)
    for end, expected in ((ends.get(0), leader), (ends.get(1), other)):
        assert (end and end[0]) == (expected and expected[0])
        assert end is None or end[1].startswith(expected[1])


@pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")
def test_two_processes_decide_as_one(counted, tmp_path):
    """`torchrun -m lad_eval run` of a run that a single process began."""
    from lad_eval.run.execute import Interrupted

    def stop():
        raise KeyboardInterrupt

    counted(stop_after=12, how=stop)
    with pytest.raises(Interrupted):
        run_tasks(settings(tmp_path / "two", tasks=(TASK,), limit=5))
    counted()
    alone = run_tasks(settings(tmp_path / "one", tasks=(TASK,), limit=5))

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lad_eval", "run"]
    options = ["-m", MODEL, "-t", TASK, "--limit", "5", "--device", "cpu", "--json", "--runs", str(tmp_path / "two")]
    options += ["--methods", ",".join(METHODS)]
    done = subprocess.run([*torchrun, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == to_rounding(row.as_dict() for row in alone)
    assert f"{TASK}: 88 requests run in " in done.stderr
    assert f", 12 stored before, for {len(METHODS)} methods (one by one they would need " in done.stderr

    one, two = (read_evidence(only_run(tmp_path / name)) for name in ("one", "two"))
    assert len(one) == len(two) == 100
    two = two.select_keys(one.key.tolist())
    np.testing.assert_allclose(two.log_probs, one.log_probs, rtol=0, atol=1e-5)
    np.testing.assert_allclose(two.attention, one.attention, rtol=0, atol=1e-5)
    assert {p.name for p in only_run(tmp_path / "two").glob("evidence*")} == {"evidence.parquet"}


def test_two_processes_under_an_intervention_leave_what_one_goes_on_with(counted, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lad_eval", "run"]
    options = ["--model", MODEL, "--tasks", TASK, "--limit", "1", "--methods", "vanilla,sofa+generate", "--device", "cpu"]
    options += ["--quiet", "--runs", str(tmp_path)]
    done = subprocess.run([*torchrun, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = counted()
    run_tasks(settings(tmp_path, tasks=(TASK,), limit=1, methods=("vanilla", "sofa+generate")))
    assert not again.asked
