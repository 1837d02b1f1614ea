"""Runs of models behind a server: the same tables, resumed as any run, with the tokens that they cost."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from _thread import interrupt_main
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

import lad_eval
from lad_eval.cli.main import invoke
from lad_eval.errors import Interrupted, UserError
from lad_eval.methods import METHOD_SETS
from lad_eval.models.tiny import folder
from tests.models.stand_in import StandIn, identity

TASK = "scenes_random_n4"


def evaluate(server, runs, *methods, **options):
    return lad_eval.evaluate("openai:served", TASK, methods=methods, limit=2, runs=runs, base_url=server.url, **options)


def metrics(result):
    return json.loads((result.folders[TASK] / "metrics.json").read_text())


def test_members_of_the_field_that_need_more_than_a_server_gives_are_left_out(stand_in, tmp_path):
    result = evaluate(stand_in, tmp_path, "field")
    assert {row.method for row in result.rows} == {"vanilla", "instruction", "pride", "cc", "capcal", "permutation-average"}
    left_out = metrics(result)["left_out"]
    assert left_out.keys() == set(METHOD_SETS["field"]) - {row.method for row in result.rows}
    assert "lad needs attention, and openai:served gives" in left_out["lad"]
    assert "a change of the model (sofa)" in left_out["sofa"]


def test_a_run_with_all_that_a_server_gives(stand_in, tmp_path):
    methods = ("generate", "majority+generate", "cot", "vanilla", "pride", "permutation-average")
    result = evaluate(stand_in, tmp_path, *methods)
    assert {row.method for row in result.rows} == set(methods)
    document = metrics(result)
    assert document["tokens"] == {"prompt": 100 * len(stand_in.bodies), "reply": 2 * len(stand_in.bodies)}
    sent = len(stand_in.bodies)
    again = evaluate(stand_in, tmp_path, *methods)
    assert len(stand_in.bodies) == sent, "all is stored"
    assert metrics(again)["tokens"] == document["tokens"]
    written = "".join(path.read_text(errors="ignore") for path in tmp_path.rglob("*.json*"))
    assert "127.0.0.1" not in written, "the server's address is the user's"


def test_a_run_that_fails_resumes_where_it_stopped_and_counts_all_tokens(stand_in, tmp_path):
    stand_in.refusal = lambda body: (400, {"detail": "out of credit"}) if len(stand_in.bodies) > 4 else None
    with pytest.raises(UserError, match="out of credit"):
        evaluate(stand_in, tmp_path, "generate", concurrency=1)
    assert sum(stand_in.answered.values()) == 4
    stand_in.refusal = lambda body: None
    with StandIn().running() as elsewhere:
        result = evaluate(elsewhere, tmp_path, "generate", concurrency=3)
        assert set(stand_in.answered).isdisjoint(elsewhere.answered), "nothing is sent twice"
        assert sum(elsewhere.answered.values()) == 6
    assert metrics(result)["tokens"] == {"prompt": 1000, "reply": 20}
    assert metrics(result)["session"]["answered"] == 6


@pytest.fixture
def interruptible():
    """As in a terminal: a process that a script started in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_a_run_at_once_and_it_resumes(stand_in, tmp_path):
    def fault(number):
        if number == 6:
            interrupt_main()
        return "delay" if number >= 6 else None

    stand_in.fault, stand_in.delay = fault, 60.0
    with pytest.raises(Interrupted, match="all stored; the same command resumes from there"):
        evaluate(stand_in, tmp_path, "generate", concurrency=2)
    [log] = tmp_path.rglob("replies.greedy-16.jsonl")
    stored = len(log.read_text().splitlines()) - 1
    assert 1 <= stored <= 6
    with StandIn().running() as restarted:
        evaluate(restarted, tmp_path, "generate")
        assert len(restarted.bodies) == 10 - stored


def test_tokens_stay_when_decided_again_and_begin_anew_when_started_over(stand_in, tmp_path):
    evaluate(stand_in, tmp_path, "vanilla")
    result = evaluate(stand_in, tmp_path, "vanilla", overwrite="always")
    assert metrics(result)["tokens"]["prompt"] == 100 * 10
    from lad_eval.run.results import rescore

    assert rescore(result.folders[TASK], ["vanilla"])["tokens"] == metrics(result)["tokens"]


def test_a_cut_log_of_tokens_is_repaired(stand_in, tmp_path):
    result = evaluate(stand_in, tmp_path, "vanilla")
    log = result.folders[TASK] / "usage.jsonl"
    log.write_bytes(log.read_bytes()[:-5])
    result = evaluate(stand_in, tmp_path, "vanilla", "generate")
    assert 1000 <= metrics(result)["tokens"]["prompt"] <= 2000


def test_the_names_of_the_answering_models_are_stored(stand_in, tmp_path):
    stand_in.usage, stand_in.model = False, lambda body: f"served-{1 + (len(stand_in.bodies) > 4)}"
    result = evaluate(stand_in, tmp_path, "generate", concurrency=1)
    assert metrics(result)["served_models"] == {"served-1": 4, "served-2": 6}
    assert "tokens" not in metrics(result)
    again = evaluate(stand_in, tmp_path, "generate")
    assert metrics(again)["served_models"] == {"served-1": 4, "served-2": 6}
    from lad_eval.run.results import rescore

    assert rescore(result.folders[TASK], ["generate"])["served_models"] == {"served-1": 4, "served-2": 6}


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_failing_server_is_named_in_a_file_of_stderr(stand_in, tmp_path, quiet):
    stand_in.fault = lambda number: "limit" if number == 0 else "garble" if number == 1 else None
    command = [sys.executable, "-m", "lad_eval", "run", "--model", "openai:served", "--base-url", stand_in.url, "--tasks", TASK]
    command += ["--methods", "generate", "--limit", "1", "--runs", str(tmp_path / "runs"), "--concurrency", "1", *quiet]
    with (tmp_path / "stderr").open("w") as stderr:
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=stderr, check=True)
    text = (tmp_path / "stderr").read_text()
    assert f"warning: {stand_in.url} answered 429 (too many requests); all requests wait 0.05 s.\n" in text


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "lad",
            "lad needs attention, and openai:served gives .* only; choose methods that read these: vanilla.",
        ),
        ("sofa+vanilla", r"sofa needs a change of the model \(sofa\), and"),
    ],
)
def test_methods_that_need_more_are_refused_before_anything_is_sent(stand_in, tmp_path, method, message):
    with pytest.raises(UserError, match=message):
        evaluate(stand_in, tmp_path, "vanilla", method)
    assert stand_in.bodies == []
    assert not list(tmp_path.iterdir())


def test_on_the_command_line(stand_in, tmp_path, capsys):
    command = [
        "run",
        "--model",
        "openai:served",
        "--tasks",
        TASK,
        "--methods",
        "generate",
        "--limit",
        "1",
        "--runs",
        str(tmp_path),
    ]
    server = ["--base-url", stand_in.url, "--concurrency", "2", "--timeout", "9", "--extra-body", '{"top_k": 1}']
    assert invoke([*command, *server, "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["model"] == "openai:served"
    assert stand_in.bodies[0]["top_k"] == 1
    assert stand_in.most_at_once <= 2
    assert invoke([*command, *server[:-1], "[1]"]) == 2
    assert "--extra-body takes a JSON object" in capsys.readouterr().err
    for value in ('{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', "[" * 200_000):
        assert invoke([*command, *server[:-1], value]) == 2
        assert "--extra-body" in capsys.readouterr().err
    assert invoke(command) == 2
    assert "needs its address: --base-url" in capsys.readouterr().err


def test_the_stand_in_tells_requests_apart(stand_in, tmp_path):
    evaluate(stand_in, tmp_path, "generate")
    assert len({identity(body) for body in stand_in.bodies}) == len(stand_in.bodies) == 10


def serving():
    """The command that starts `transformers serve`, or why there is none."""
    from transformers.utils.import_utils import is_serve_available

    command = shutil.which("transformers", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    return command if command and is_serve_available() else None


@pytest.mark.slow
def test_transformers_serve_gives_the_answers_of_a_run_here(tmp_path):
    command = serving()
    if command is None:
        pytest.skip("`transformers serve` needs fastapi, uvicorn and openai: pip install 'transformers[serving]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, model = f"http://127.0.0.1:{port}", str(folder())
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([command, "serve", model, "--port", str(port), "--device", "cpu"], stdout=log, stderr=log)
    try:
        _wait_for(f"{url}/health", server, tmp_path / "log")
        options = {"methods": ["generate", "majority+generate"], "limit": 5, "runs": tmp_path / "runs"}
        there = lad_eval.evaluate(f"openai:{model}", TASK, base_url=f"{url}/v1", **options)
        with pytest.raises(UserError, match="gives no log-probabilities"):
            lad_eval.evaluate(f"openai:{model}", TASK, base_url=f"{url}/v1", **{**options, "methods": ["vanilla"]})
    finally:
        server.terminate()
        server.wait(30)
    here = lad_eval.evaluate("lad-tiny", TASK, device="cpu", **options)
    columns = ["method", "sample_id", "order", "position"]
    predictions = [pd.read_parquet(result.folders[TASK] / "predictions.parquet")[columns] for result in (there, here)]
    assert len(predictions[0]) == 50
    pd.testing.assert_frame_equal(*predictions)
    assert metrics(there)["tokens"]["reply"] == metrics(there)["forward_passes"]["all"] == metrics(here)["forward_passes"]["all"]


def _wait_for(url, server, log):
    for _ in range(1200):
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        assert server.poll() is None, log.read_text()
        time.sleep(0.1)
    pytest.fail(log.read_text())
