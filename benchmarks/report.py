"""Tables, the machine that they were made on, and their place in a document."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from tabulate import tabulate


@dataclass(frozen=True)
class Table:
    """What one benchmark found on one model."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""

    def markdown(self) -> str:
        body = tabulate([list(map(str, row)) for row in self.rows], self.columns, tablefmt="github", disable_numparse=True)
        return "\n\n".join(part for part in (f"### {self.title}", body, self.note) if part)


def machine(device: str) -> str:
    """One line on what ran."""
    import torch
    import transformers

    import lad_eval

    if device == "cuda":
        where = f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"
    else:
        threads = torch.get_num_threads()
        where = f"{_processor()}, {os.cpu_count()} cores, {threads} thread{'s' if threads > 1 else ''} used, {_memory()}"
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    return (
        f"{where}{load}; Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"lad_eval {lad_eval.__version__}; {datetime.now(timezone.utc):%Y-%m-%d}."
    )


def write(path: Path, section: str, content: str) -> None:
    """Puts `content` between the section's markers; a document without them gets them at its end."""
    begin, end = f"<!-- benchmarks:{section} -->", f"<!-- /benchmarks:{section} -->"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    block = f"{begin}\n{content}\n{end}"
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    text = found.sub(lambda _: block, text) if found.search(text) else f"{text.rstrip()}\n\n{block}\n".lstrip()
    path.write_text(text, encoding="utf-8")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB memory"
    except (ValueError, OSError):
        return "memory unknown"
