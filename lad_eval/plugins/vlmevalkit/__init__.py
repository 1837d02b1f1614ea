"""The tasks and methods inside VLMEvalKit.

    from lad_eval.plugins.vlmevalkit import register
    register()
    # from here on VLMEvalKit knows ScenesRetrieval_Random_N4, "<its model>+LAD", "HF:<hub id or folder>", lad-tiny, and
    # "<model>+fastv(keep=0.25)", which answers its own data sets

`register` makes VLMEvalKit know them; `main` does so and runs VLMEvalKit's own main loop, as `lad-eval vlmeval` does.

names.py         names on both sides        datasets.py  a task as a data set           entries.py    the table of models
registration.py  both put into VLMEvalKit   writer.py    models that write replies      scores.py     metrics of its predictions
arguments.py     its command line           launch.py    its main loop                  checks.py     before and after the loop

Nothing of VLMEvalKit, which takes some 20 seconds to import, is imported before one of the two is called.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from lad_eval.errors import UserError
from lad_eval.plugins.vlmevalkit.names import dataset_name

__all__ = ["dataset_name", "main", "register"]


def register(*tasks: str | Path) -> list[str]:
    """See `lad_eval.plugins.vlmevalkit.registration.register`."""
    from lad_eval.plugins.vlmevalkit import registration

    return registration.register(*tasks)


def main(arguments: Sequence[str] | None = None, *, kit: str | Path | None = None) -> None:
    """Registers and runs VLMEvalKit's own main loop; a user error ends the process with one line and exit code 2.

    Args:
        arguments: VLMEvalKit's own flags; None: those of the command line.
        kit: a source checkout of VLMEvalKit to run; None: the installed package.
    """
    from lad_eval.plugins.vlmevalkit.launch import run
    from lad_eval.terminal import visible

    try:
        run(sys.argv[1:] if arguments is None else arguments, kit)
    except UserError as error:
        sys.stderr.write(f"error: {visible(' '.join(str(error).split()))}\n")
        raise SystemExit(error.exit_code) from None
