"""How an extra of the package is installed here: from wherever the package itself came, which need not be an index."""

from __future__ import annotations

import json
import shlex
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

_NAME = "lad-eval"


def install_command(extra: str) -> str:
    """A command that installs the package again with an extra, quoted for any shell.

    Where it came from is what installers record (`direct_url.json`, PEP 610): a checkout, a wheel, a repository; without a record
    an index. Without pip in this environment, as in that of `make`, the command is uv's.
    """
    editable, requirement = _requirement(extra)
    pip = "pip install" if find_spec("pip") is not None else f"uv pip install --python {shlex.quote(sys.executable)}"
    return " ".join([pip, *(["-e"] if editable else []), shlex.quote(requirement)])


def _requirement(extra: str) -> tuple[bool, str]:
    """Whether the installation is editable, and what to install."""
    try:
        record = json.loads(distribution(_NAME).read_text("direct_url.json") or "{}")
        url = record["url"]
    except (PackageNotFoundError, KeyError, TypeError, ValueError):
        return False, f"{_NAME}[{extra}]"
    if "dir_info" in record:
        folder = unquote(urlsplit(url).path)
        place = "." if Path(folder) == Path.cwd() else folder
        return bool(record["dir_info"].get("editable")), f"{place}[{extra}]"
    source = record.get("vcs_info")
    if source:
        url = f"{source['vcs']}+{url}@{source['commit_id']}"
    return False, f"{_NAME}[{extra}] @ {url}"
