"""Answers and trainings that are killed at any moment go on to the same pairs and the same weights."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time

import pytest
from safetensors.torch import load_file

from lad_eval.cli.main import invoke, main
from lad_eval.training.answers import ANSWERS
from lad_eval.training.folder import CHECKPOINTS, SETTINGS
from lad_eval.training.pairs import PairSet
from tests.training.examples import MODEL, write_pairs

pytest.importorskip("trl")
pytestmark = pytest.mark.slow
STEPS = 14


@pytest.fixture(scope="module")
def start():
    """Starts `lad-eval capl` in a process of its own, of a server that has imported what takes longest."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lad_eval.models.huggingface", "trl.trainer.dpo_trainer", "peft"])

    def started(*words):
        process = context.Process(target=main, args=(["capl", *map(str, words), "--quiet", "--device", "cpu"],))
        process.start()
        return process

    return started


def code_of(process):
    process.join()
    return process.exitcode


def kill_after(process, has_come, most_seconds):
    """Kills a process at a moment after something has come: at once, or up to so many seconds later; its exit code."""
    while not has_come():
        assert process.is_alive()
        time.sleep(0.005)
    time.sleep(random.uniform(0, most_seconds))
    process.kill()
    return code_of(process)


def training(folder, pairs):
    options = ["--batch-size", 2, "--pairs-at-once", 1, "--save-every", 1, "--learning-rate", 1e-3]
    return ["train", "-m", MODEL, "--pairs", pairs, "--out", folder, *options]


def test_a_training_killed_five_times_ends_in_the_same_weights(tmp_path, start):
    pairs = write_pairs(tmp_path / "pairs", 2 * STEPS)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert code_of(start(*training(whole, pairs))) == 0
    ended = []
    for step in (0, 3, 5, 7, 9):

        def has_come(step=step):
            return any(int(path.name.rpartition("-")[2]) >= step for path in (killed / CHECKPOINTS).glob("checkpoint-*"))

        ended.append(kill_after(start(*training(killed, pairs)), has_come, 0.5))
    assert ended == [-signal.SIGKILL] * 5
    assert not (killed / "adapter_model.safetensors").exists()
    assert code_of(start(*training(killed, pairs))) == 0
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (whole, killed))
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    assert any(weight.abs().max() > 0 for name, weight in first.items() if "lora_B" in name)


def test_answers_killed_in_the_middle_end_in_the_same_pairs(tmp_path, start):
    def answers(name):
        words = ["answers", "-m", MODEL, "--tasks", "scenes_random_n4", "--pairs", 12, "--limit", 48, "--unbalanced"]
        return start(*words, "--out", tmp_path / name)

    assert code_of(answers("whole")) == 0
    stored = tmp_path / "killed" / ANSWERS
    assert kill_after(answers("killed"), lambda: stored.exists() and stored.stat().st_size, 0.05) == -signal.SIGKILL
    assert stored.stat().st_size < (tmp_path / "whole" / ANSWERS).stat().st_size
    assert code_of(answers("killed")) == 0
    assert PairSet.load(tmp_path / "killed") == PairSet.load(tmp_path / "whole")


def test_a_second_process_in_the_same_folder_is_refused_in_one_line(tmp_path, start, capsys):
    pairs = write_pairs(tmp_path / "pairs", 2 * STEPS)
    folder = tmp_path / "adapter"
    first = start(*training(folder, pairs))
    try:
        while not (folder / SETTINGS).exists():
            assert first.is_alive()
            time.sleep(0.01)
        code = invoke(["capl", *map(str, training(folder, pairs))])
    finally:
        first.kill()
        first.join()
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert f"Another process is writing to {folder}; wait until it has ended, or choose another --out." in line
