"""Peak memory of one forward pass above what was held before it: on the CPU a fresh process for each figure."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.models import Plan

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def extra_bytes(variant: str, model: str, plan: Plan, rounds: int = 2) -> float:
    """Median over fresh processes of the memory that a variant of `evidence_pass` takes on top of model and inputs."""
    return statistics.median(_one(variant, model, plan) for _ in range(rounds))


def _one(variant: str, model: str, plan: Plan) -> int:
    # glibc keeps what was freed below a threshold that grows with use; a fixed one gives tensors back at once.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": str(torch.get_num_threads())}
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", json.dumps([variant, model, asdict(plan)])],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if told.returncode:
        raise RuntimeError(f"the process that measures memory failed:\n{told.stderr[-2000:]}")
    return int(told.stdout.split()[-1])


def peak_above(run: Callable[[], object], device: str) -> int:
    """Bytes by which memory rises at most while `run` runs."""
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        _CLEAR.write_text("5")  # the peak begins again from here
        before = _kibibytes("VmRSS")
        run()
        return 1024 * (_kibibytes("VmHWM") - before)
    except OSError:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run()
        return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def _kibibytes(entry: str) -> int:
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{entry}:"))
    return int(line.split()[1])


def main(argument: str) -> None:
    from benchmarks.evidence_pass import AGAIN, passes

    variant, model, plan = json.loads(argument)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    small, _ = passes(model, Plan(**{**plan, "images": 2}), [variant])
    small[variant](0)
    del small
    runs, _ = passes(model, Plan(**plan), [variant])
    if variant == AGAIN:
        runs[variant](0)
    print(peak_above(lambda: runs[variant](0), plan["device"]))


if __name__ == "__main__":
    main(sys.argv[1])
