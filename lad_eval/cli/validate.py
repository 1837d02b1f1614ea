"""`lad-eval validate`: are these task definitions right?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

FAULTY = 2


def validate(paths: Annotated[list[Path], typer.Argument(help="YAML files, or folders of them.")]) -> int:
    """Check task definitions; one line for each that is wrong."""
    from lad_eval.tasks.validate import validate as faults_of

    faults = [fault for path in paths for fault in faults_of(path)]
    for fault in faults:
        sys.stderr.write(f"error: {fault}\n")
    return FAULTY if faults else 0
