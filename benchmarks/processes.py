"""Two processes of one run against one, each with a core and a thread of its own; also the program of such a process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.models import Plan
from benchmarks.report import Table
from benchmarks.timer import Timing

TASK = "scenes_random_n4"
WHOLE, RUN, BUSIEST = "with start-up", "without start-up", "CPU time of the busiest"
COUNTS = (1, 2)


def run(plan: Plan) -> list[Table]:
    """One table, of `lad-tiny` on the CPU; none on a GPU, which a process has to itself."""
    if plan.device != "cpu":
        return []
    samples = plan.limits[-1]
    seconds: dict[str, dict[str, list[float]]] = {name: {str(count): [] for count in COUNTS} for name in (WHOLE, RUN, BUSIEST)}
    for _ in range(max(1, plan.rounds // 2)):
        for count in COUNTS:
            for name, value in measured(count, samples).items():
                seconds[name][str(count)].append(value)
    timings = {name: Timing(of_name) for name, of_name in seconds.items()}
    rows = [
        (
            name,
            *(f"{timing.median(str(count)):.1f}" for count in COUNTS),
            timing.ratio("1", "2"),
        )
        for name, timing in timings.items()
    ]
    return [
        Table(
            f"Two processes against one (lad-tiny, {TASK}, {samples} samples, the default methods)",
            ("what is timed", "one process, s", "two, s", "times faster"),
            rows,
            "Every process has one thread and, where the system allows it, a core of its own. Start-up: the libraries and the "
            "model. What follows it is planning, all requests, joining what the processes stored, and deciding. Seconds are "
            "those of the wall, but for the CPU time after start-up of the process that spends most, which says the same where "
            "the machine is shared. Goal: without start-up at least 1.8 times faster.",
        )
    ]


def measured(count: int, samples: int) -> dict[str, float]:
    """Seconds of a run by so many processes."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "benchmarks.processes", folder, str(samples)]
        started = time.perf_counter()
        processes = [
            subprocess.Popen(
                command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True
            )
            for rank in range(count)
        ]
        said = [process.communicate()[0] for process in processes]
        whole = time.perf_counter() - started
    if any(process.returncode for process in processes):
        raise RuntimeError(f"a run by {count} processes failed")
    each = [json.loads(text) for text in said]
    return {WHOLE: whole, RUN: each[0][RUN], BUSIEST: max(one[BUSIEST] for one in each)}


def main(folder: str, samples: str) -> None:
    """One process of a run: prints its seconds after start-up."""
    import pandas  # noqa: F401 - a run imports it, and pyarrow with it, when it writes: that is start-up, too
    import pyarrow.parquet  # noqa: F401

    from lad_eval.methods import DEFAULT_METHODS, resolve_methods
    from lad_eval.run.distributed import DistributedContext
    from lad_eval.run.execute import Settings, load, run_task
    from lad_eval.tasks.registry import load_task

    context = DistributedContext.from_environment()
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[context.rank % len(cores)]})
    settings = Settings("lad-tiny", limit=int(samples), device="cpu", out=Path(folder), quiet=True)
    with context.joined():
        task, model = load_task(TASK), load(settings, context)
        with context.barrier():
            pass  # they start together
        wall, busy = time.perf_counter(), time.process_time()
        run_task(model, task, resolve_methods(DEFAULT_METHODS), settings, context)
        print(json.dumps({RUN: time.perf_counter() - wall, BUSIEST: time.process_time() - busy}))


if __name__ == "__main__":
    main(*sys.argv[1:])
