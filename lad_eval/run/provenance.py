"""What produced a result: versions of the code and its libraries, the commit, the machine."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import lad_eval

LIBRARIES = ("torch", "torchvision", "transformers", "accelerate", "tokenizers", "numpy", "scipy", "pandas", "pillow")


def versions() -> dict[str, str | None]:
    """Installed versions of Python and of the libraries that can change a number; None where one is not installed."""
    return {"lad_eval": lad_eval.__version__, "python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}}


def checkout() -> dict[str, Any]:
    """Git commit and dirty flag of the checkout that lad_eval runs from; both None for an installed package."""
    root = Path(lad_eval.__file__).resolve().parents[1]
    unknown = {"commit": None, "dirty": None}
    if not (root / ".git").exists():
        return unknown
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain")
    return unknown if commit is None or status is None else {"commit": commit, "dirty": bool(status)}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
