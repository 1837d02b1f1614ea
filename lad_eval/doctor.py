"""What is installed here and what works; asks nothing of the network."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import lad_eval
from lad_eval.run.provenance import LIBRARIES, checkout, versions

EXTRAS = {"vlmevalkit": ("vlmeval", "vlmeval"), "adapters": ("peft", "peft"), "figures and `make tiny`": ("matplotlib", "train")}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what was looked at.
        ok: whether it is there and works.
        text: what was found, or how to mend it.
        needed: whether `lad-eval run` cannot do without it.
    """

    name: str
    ok: bool
    text: str
    needed: bool = False


def examine(out: Path) -> list[Finding]:
    """Everything that a run needs or can use; `out` is the results folder."""
    return [_package(), *_libraries(), *_devices(), *_extras(), _tiny(), _offline(), _results(out)]


def as_text(findings: Sequence[Finding]) -> str:
    width = max(len(finding.name) for finding in findings)
    signs = {(True, True): "ok", (True, False): "ok", (False, True): "MISSING", (False, False): "-"}
    return "\n".join(f"{signs[f.ok, f.needed]:<8}{f.name:<{width}}  {f.text}" for f in findings)


def as_json(findings: Sequence[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def _package() -> Finding:
    state = checkout()
    commit = (
        "installed package"
        if state["commit"] is None
        else f"commit {state['commit'][:12]}{', changed' if state['dirty'] else ''}"
    )
    return Finding("lad_eval", True, f"{lad_eval.__version__}, {commit}, Python {platform.python_version()}", needed=True)


def _libraries() -> list[Finding]:
    found = versions()
    return [Finding(name, found[name] is not None, found[name] or f"install {name}", needed=True) for name in LIBRARIES]


def _devices() -> list[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return [Finding("devices", False, f"torch does not load: {error}", needed=True)]
    cpu = Finding("cpu", True, f"{os.cpu_count()} cores, {torch.get_num_threads()} threads", needed=True)
    cuda = [
        Finding(
            f"cuda:{i}",
            True,
            f"{torch.cuda.get_device_name(i)}, {torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB",
        )
        for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    mps = torch.backends.mps.is_available()
    return [
        cpu,
        *(cuda or [Finding("cuda", False, "no NVIDIA device; models run on the processor")]),
        Finding("mps", mps, "available" if mps else "no Apple device"),
    ]


def _extras() -> list[Finding]:
    return [
        Finding(
            name,
            there := importlib.util.find_spec(module) is not None,
            "installed" if there else f"pip install 'lad-eval[{extra}]'",
        )
        for name, (module, extra) in EXTRAS.items()
    ]


def _tiny() -> Finding:
    from lad_eval.models.tiny import folder

    there = (folder() / "config.json").is_file()
    return Finding("lad-tiny", there, "embedded model present" if there else "embedded model absent; `make tiny` trains it")


def _offline() -> Finding:
    offline = os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    return Finding(
        "hub", not offline, "switched off by HF_HUB_OFFLINE; local models only" if offline else f"{endpoint} (not tried)"
    )


def _results(out: Path) -> Finding:
    nearest = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    return Finding("results", writable, f"{out} {'can' if writable else 'cannot'} be written", needed=True)
