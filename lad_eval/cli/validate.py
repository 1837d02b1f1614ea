"""`lad-eval validate`: are these task definitions right, and can a model be given their samples?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lad_eval.cli.options import Adapter, Date, ImagePreparation, PreparedAs, Revision, TrustRemoteCode
from lad_eval.cli.show import say_next
from lad_eval.models.date import DEFAULT_DATE

FAULTY = 2


def validate(
    paths: Annotated[list[str], typer.Argument(help="YAML files, folders of them, or names of tasks.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Check every sample's prompt with this model's processor; nothing is run.")
    ] = None,
    revision: Revision = None,
    adapter: Adapter = None,
    image_preparation: PreparedAs = ImagePreparation.protocol,
    trust_remote_code: TrustRemoteCode = False,
    date: Date = DEFAULT_DATE,
) -> int:
    """Check task definitions, and with --model every sample's prompt; one line for each fault."""
    from lad_eval.tasks.validate import validate as faults_of
    from lad_eval.terminal import visible, write

    faults = [fault for path in paths for fault in faults_of(path)]
    if model is not None and not faults:
        from lad_eval.models.registry import load_prompt_reader
        from lad_eval.run.preflight import preflight
        from lad_eval.run.silence import hush_libraries
        from lad_eval.tasks.validate import open_tasks

        hush_libraries(quiet=False)
        reader = load_prompt_reader(
            model,
            revision=revision,
            adapter=adapter,
            image_preparation=image_preparation.value,
            trust_remote_code=trust_remote_code,
            date=date,
        )
        for report in preflight(reader, [task for path in paths for task in open_tasks(path)]):
            write(f"{visible(report.summary)}\n")
            faults += report.faults
    for fault in faults:
        sys.stderr.write(f"error: {visible(fault)}\n")
    if not faults and not any(Path(path).is_dir() for path in paths):
        say_next(f"lad-eval run --model {model or '<folder or hub id>'} --tasks {','.join(paths)}")
    return FAULTY if faults else 0
