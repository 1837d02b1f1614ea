"""`accelerate launch` with two processes on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from lad_eval.models.registry import load_model
from tests.training.examples import MODEL, write_pairs

pytestmark = pytest.mark.slow

pytest.importorskip("trl")


def test_two_processes_train_one_adapter(tmp_path):
    pairs = write_pairs(tmp_path / "pairs", 8)
    launch = [
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
    ]
    options = ["--batch-size", "2", "--pairs-at-once", "1", "--learning-rate", "1e-3"]
    words = ["-m", "lad_eval", "capl", "train", "-m", MODEL, "--pairs", str(pairs), "--out", str(tmp_path / "adapter"), *options]
    done = subprocess.run([sys.executable, *launch, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines() if line.startswith("step")] == [
        f"step {step} of 4" for step in range(1, 5)
    ]
    assert json.loads((tmp_path / "adapter" / "training.json").read_text())["steps"] == 4
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(weight.isfinite().all() for weight in weights.values())
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name)
    assert "adapter_attention" in load_model(MODEL, adapter=str(tmp_path / "adapter")).fingerprint
