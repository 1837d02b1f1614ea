"""The package of examples/, as if it were installed."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "examples" / "lad_eval_example"


def install(site):
    """Writes the metadata of the package into a folder; returns the folders that belong into the path."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lines = [
        re.sub(r'^\[project\.entry-points\."(.*)"\]$', r"[\1]", line).replace('"', "")
        for line in text[text.index("[project.entry-points") :].splitlines()
    ]
    info = Path(site) / "lad_eval_example-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lad-eval-example\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return [str(site), str(ROOT)]
