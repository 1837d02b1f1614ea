"""`python -m benchmarks`: measures, prints tables, and with --write puts them into a document."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

NAMES = (
    *("evidence_pass", "candidates", "probes", "whole_run", "batches", "throughput", "preparing", "harness", "windows"),
    *("processes", "run_memory", "mining", "pruning", "cross_image", "order_invariant", "replies", "servers", "gpu"),
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed and memory, as ratios within one run.")
    parser.add_argument("--only", help=f"benchmarks, separated by commas: {', '.join(NAMES)}")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: the real sizes in bfloat16")
    parser.add_argument("--threads", type=int, help="CPU threads; default: torch's choice")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of every comparison")
    parser.add_argument("--small", action="store_true", help="sizes at which all runs in seconds, to see that it runs")
    parser.add_argument("--write", type=Path, help="a Markdown file whose tables are replaced, such as docs/performance.md")
    given = parser.parse_args(arguments)
    names = given.only.split(",") if given.only else list(NAMES)
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"unknown benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    from benchmarks.models import SMALL, Plan
    from benchmarks.report import machine, write

    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU")
    if given.threads:
        torch.set_num_threads(given.threads)
    plan = SMALL if given.small else Plan(device=given.device, rounds=given.rounds)
    for name in names:
        tables = importlib.import_module(f"benchmarks.{name}").run(plan)
        for table in tables:
            print(table.markdown(), end="\n\n", flush=True)
        if given.write and tables:
            content = "\n\n".join(table.markdown() for table in tables)
            write(given.write, f"{name} {given.device}", f"{content}\n\nMeasured on: {machine(given.device)}")
    print(f"Measured on: {machine(given.device)}", file=sys.stderr)


if __name__ == "__main__":
    main()
