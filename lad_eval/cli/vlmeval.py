"""`lad-eval vlmeval`: VLMEvalKit's own command, with our tasks and models in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TAKES_ANY_FLAG = {"allow_extra_args": True, "ignore_unknown_options": True}


def vlmeval(
    context: typer.Context,
    kit: Annotated[
        Path | None, typer.Option("--kit", help="A source checkout of VLMEvalKit to run; default: the installed one.")
    ] = None,
) -> None:
    """Run VLMEvalKit with our tasks, and with every model behind a method; all its own flags are passed on.

    --data takes VLMEvalKit's data sets, our tasks as such (ScenesRetrieval_Random_N4, COCORetrieval_Random_N4, ...) or by
    their own names, and YAML files. --model takes VLMEvalKit's models, <its model>+LAD, +PriDe or another method of
    `lad-eval ls methods`, lad-tiny, and HF:<hub id or folder>, the last two with or without a method.

    Its most used flags: --work-dir, --mode all|infer|eval, --limit, --reuse, --verbose; `python -m vlmeval --help` has all.
    """
    from lad_eval.plugins.vlmevalkit.launch import run
    from lad_eval.run.silence import hush_libraries

    hush_libraries(quiet=False)
    run(context.args, kit)
