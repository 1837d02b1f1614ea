"""Several nodes: all processes see one folder, a node's files are read once, and a model may be on several devices."""

import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lad_eval.errors import UserError
from lad_eval.models.huggingface import HuggingFaceVLM
from lad_eval.models.registry import load_model, weights_identity
from lad_eval.run.distributed import DistributedContext, FollowerError, RankError
from lad_eval.run.execute import Settings
from tests.models.requests import make_requests


def _free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def test_a_single_process_needs_no_shared_folder_and_computes_itself(tmp_path):
    DistributedContext().check_shared(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    assert DistributedContext().once_per_node(lambda: 7) == 7


def test_a_single_process_has_the_options_that_it_has():
    DistributedContext().check_same({"limit": "2"})


def test_the_options_that_processes_have_in_common_are_named_as_on_the_command_line():
    here, there = Settings("lad-tiny", limit=2, out=Path("a"), quiet=True), Settings("lad-tiny", limit=2, device="cuda:1")
    assert here.shared == there.shared
    assert here.shared["limit"] == "2"
    assert here.shared["image-preparation"] == "protocol"
    assert Settings("lad-tiny").shared["limit"] == "not given"


def _start_with(rank, port, limit, told):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank))
    try:
        context = DistributedContext.from_environment()
        with context.joined():
            context.check_same(Settings("lad-tiny", limit=limit).shared)
            told.put((rank, "well"))
    except UserError as error:
        told.put((rank, str(error)))


@pytest.mark.slow
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="forks")
@pytest.mark.parametrize("limits", [(2, 2), (2, 5)])
def test_processes_with_other_options_end_before_anything_is_run(limits):
    import torch.distributed  # noqa: F401 - imported once, before the fork

    context = multiprocessing.get_context("fork")
    told, port = context.Queue(), _free_port()
    processes = [context.Process(target=_start_with, args=(rank, port, limits[rank], told)) for rank in (0, 1)]
    for process in processes:
        process.start()
    ends = dict(told.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    fault = "Process 1 of 2 failed: --limit is 5, and 2 in process 0; start all with the same options."
    assert ends == ({0: "well", 1: "well"} if limits == (2, 2) else {0: fault, 1: ""})


def _take_part(rank, port, folder, local_rank, told):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=local_rank)
    context, computed = DistributedContext.from_environment(), []
    try:
        with context.joined():
            context.check_shared(folder)
            value = context.once_per_node(lambda: computed.append(rank) or f"from {rank}")
            told.put((rank, "well", value, computed))
    except UserError as error:
        told.put((rank, type(error).__name__, str(error), computed))


@pytest.mark.slow
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="forks")
@pytest.mark.parametrize(
    ("folders", "local_ranks", "leader", "other"),
    [
        (("a/b", "a/b"), "01", ("well", "from 0", [0]), ("well", "from 0", [])),
        (("a/b", "a/b"), "00", ("well", "from 0", [0]), ("well", "from 0", [1])),  # two launchers on one machine
        (("a/b", "c"), "01", (RankError.__name__, "Process 1 of 2 failed: ", []), (FollowerError.__name__, "", [])),
    ],
)
def test_all_processes_must_see_one_folder(tmp_path, folders, local_ranks, leader, other):
    import torch.distributed  # noqa: F401 - imported once, before the fork

    context = multiprocessing.get_context("fork")
    told, port = context.Queue(), _free_port()
    arguments = [(rank, port, tmp_path / folders[rank], local_ranks[rank], told) for rank in (0, 1)]
    processes = [context.Process(target=_take_part, args=each) for each in arguments]
    for process in processes:
        process.start()
    ends = {rank: end for rank, *end in (told.get(timeout=60) for _ in processes)}
    for process in processes:
        process.join(timeout=60)
    for end, expected in ((ends[0], leader), (ends[1], other)):
        assert (end[0], end[2]) == (expected[0], expected[2])
        assert end[1].startswith(expected[1])
    if leader[0] != "well":
        assert ends[0][1].endswith("pass a folder that all nodes share as --runs.")
        assert str(tmp_path / folders[1]) in ends[0][1]
    assert list(tmp_path.iterdir()) == []  # nothing is left of the check


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False])
def test_two_launchers_share_a_run_or_end_at_once(tmp_path, shared):
    """As on two nodes: a `torchrun` each, the results in a folder that is relative to where they started."""
    port, started = _free_port(), []
    options = ["--model", "lad-tiny", "--tasks", "scenes_random_n4", "--limit", "2", "--methods", "vanilla", "--device", "cpu"]
    for node in (0, 1):
        place = tmp_path / ("both" if shared else f"node{node}")
        place.mkdir(exist_ok=True)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(node)]
        launcher += ["--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", port, "-m", "lad_eval", "run"]
        command = [*launcher, *options, "--runs", "runs", "--quiet"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=place, env=environment, **pipes))
    ends = [(process.communicate(timeout=300), process.returncode) for process in started]
    (out, errors), _ = ends[0]
    if shared:
        assert [code for _, code in ends] == [0, 0], ends
        assert "vanilla" in out
        assert len(list((tmp_path / "both" / "runs").rglob("evidence.parquet"))) == 1
        return
    assert all(code for _, code in ends)
    lines = [line for line in errors.splitlines() if "does not see what process 0 writes to" in line]
    assert len(lines) == 1
    assert "Process 1 of 2 failed: " in lines[0]
    assert not list(tmp_path.rglob("spec.json"))


def test_the_identity_of_weights_is_that_of_the_fingerprint_and_is_not_computed_twice(monkeypatch):
    known = weights_identity("lad-tiny")
    assert weights_identity("random:qwen2.5-vl") is None
    monkeypatch.setattr("lad_eval.models.fingerprint.folder_identity", lambda folder, code: pytest.fail("read again"))
    assert load_model("lad-tiny", device="cpu", weights=known).fingerprint["weights"] == known


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_map": "balanced"}, "Unknown device map 'balanced': use auto"),
        ({"device_map": "auto", "device": "cpu"}, "--device-map auto chooses the devices itself; leave out --device cpu"),
        ({"device_map": "auto"}, "random:qwen2.5-vl is created on one device"),
    ],
)
def test_a_device_map_that_cannot_be_used_is_refused(options, message):
    pytest.importorskip("accelerate")
    with pytest.raises(UserError, match=message):
        load_model("random:qwen2.5-vl", **options)


def test_several_processes_of_a_node_cannot_share_its_gpus(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="start one process per node"):
        load_model("lad-tiny", device_map="auto")


def test_a_model_that_accelerate_spreads_gives_the_same_evidence(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    from lad_eval.models.random import load_random

    plain, spread = (load_random("qwen2.5-vl", seed=1) for _ in range(2))
    layers = {f"model.language_model.layers.{i}": "disk" if i == 1 else "cpu" for i in range(3)}
    rest = {name: "cpu" for name, _ in spread[0].named_parameters() if ".layers." not in name}
    rest |= {name: "cpu" for name, _ in spread[0].named_buffers() if ".layers." not in name}
    model = accelerate.dispatch_model(spread[0], {**layers, **rest}, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    requests = make_requests(3, 2)
    ours, theirs = (HuggingFaceVLM(m, p, name="m", weights="w").evidence(requests) for m, p in ((model, spread[1]), plain))
    assert list(tmp_path.iterdir())  # a layer is on the disk
    np.testing.assert_allclose(ours.log_probs, theirs.log_probs, atol=1e-6)
    np.testing.assert_allclose(ours.attention, theirs.attention, atol=1e-6)


def test_the_map_auto_loads_a_model_from_files():
    pytest.importorskip("accelerate")
    requests = make_requests(4, 1)
    mapped, plain = load_model("lad-tiny", device_map="auto"), load_model("lad-tiny", device="cpu")
    np.testing.assert_allclose(mapped.evidence(requests).log_probs, plain.evidence(requests).log_probs, atol=1e-6)
