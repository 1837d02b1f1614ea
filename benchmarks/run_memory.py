"""Peak memory of a whole `lad-eval run` in a process of its own, against the number of samples: it is to stay flat."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from benchmarks.models import Plan
from benchmarks.report import Table

TASK = "scenes_random_n8"


def run(plan: Plan) -> list[Table]:
    """One table, of `lad-tiny` on the CPU; none on a GPU, whose memory this does not see."""
    if plan.device != "cpu":
        return []
    peaks = {samples: peak_bytes(samples) for samples in plan.limits}
    least = next(iter(peaks.values()))
    rows = [(samples, f"{peak / 2**20:.0f}", f"{peak / least:.2f}") for samples, peak in peaks.items()]
    return [
        Table(
            f"Peak memory of a whole run (lad-tiny, {TASK}, the default methods, a process a run)",
            ("samples", "peak MiB", "by the fewest samples"),
            rows,
            "Goal: at most 1.2 for 20 times the samples.",
        )
    ]


def peak_bytes(samples: int) -> int:
    """Resident memory at most, libraries included, of a run of so many samples."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["run", "--model", "lad-tiny", "--tasks", TASK, "--limit", str(samples), "--runs", folder, "--quiet"]
        process = subprocess.Popen([sys.executable, "-m", "lad_eval", *words], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"lad-eval {' '.join(words)} failed")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
