"""VLMEvalKit's own main loop, with our tasks and models in it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from lad_eval.errors import UserError
from lad_eval.extras import install_command
from lad_eval.models.vlmeval.kit import kit
from lad_eval.plugins.vlmevalkit.arguments import CommandLine
from lad_eval.plugins.vlmevalkit.checks import (
    check_configuration,
    check_data,
    check_files,
    check_format,
    check_method,
    check_reuse,
    check_writable,
    faults,
)
from lad_eval.plugins.vlmevalkit.names import dataset_name, expanded, flat, stem
from lad_eval.plugins.vlmevalkit.registration import register
from lad_eval.plugins.vlmevalkit.scores import work_dir
from lad_eval.run.distributed import DistributedContext, FollowerError
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.task import Task

PROGRAM = "lad-eval vlmeval"


class RunError(UserError):
    """VLMEvalKit finished, but not everything that was requested succeeded."""

    exit_code = 1


def run(arguments: Sequence[str], kit_folder: str | Path | None = None) -> None:
    """Registers, then runs VLMEvalKit's own main loop.

    `--data` also takes our names of tasks, groups, and YAML files; `--model` also takes `HF:<hub id or folder>`.

    Args:
        arguments: VLMEvalKit's own flags and values.
        kit_folder: a source checkout of VLMEvalKit, whose run.py is run; None: the installed package.

    Raises:
        UserError: a name does not exist, VLMEvalKit is missing, one of our models refused its input, or (RunError) a combination
            of model and data failed otherwise. With several processes only the main one reports it.
    """
    context = DistributedContext.from_environment()
    try:
        _run(list(arguments), kit_folder)
    except UserError as error:
        if not context.is_main_process:
            raise FollowerError from error
        raise


def _run(words: list[str], kit_folder: str | Path | None) -> None:
    if kit_folder is not None:
        _put_first(Path(kit_folder))
    if importlib.util.find_spec("vlmeval") is None:
        raise UserError(f"VLMEvalKit is not installed: `{install_command('vlmeval')}`, or name a source checkout with --kit.")
    line = CommandLine(words)
    line.check()
    check_format()
    configuration = line.configuration()
    data, models = line.values("--data"), line.values("--model")
    if configuration is None and not (data and models):
        raise UserError("Name what to run: --data <data sets> --model <models>, or --config <file>.")
    named = configuration.data_sets if configuration else data
    ours = {name: {dataset_name(stem(task)): task for task in expanded(name)} for name in named}
    tasks = {name: task for members in ours.values() for name, task in members.items()}
    # Faults of the data are reported now rather than after VLMEvalKit has been imported and a model loaded.
    opened = {task: load_task(task) for task in tasks.values()}
    aliases: dict[str, str] = {}
    served_elsewhere = line.has("--base-url")
    shorts = {name: name if served_elsewhere else flat(name, aliases) for name in models}
    module = _main_module(kit_folder)

    from lad_eval.plugins.vlmevalkit.datasets import LADDataset
    from lad_eval.plugins.vlmevalkit.entries import LADModel, installed

    register(*dict.fromkeys(tasks.values()))
    entries = installed()
    entries.aliases.update(aliases)
    if configuration is not None:
        check_configuration(configuration, entries, ours)
    else:
        check_data([name for name, members in ours.items() if not members])
    for name, short in () if served_elsewhere else shorts.items():
        _ = entries[short]
        if line.has("--api-mode") and not dict.__contains__(entries, short):
            raise UserError(f"--api-mode is for APIs, and {name} runs locally; leave it out.")
        if line.has("--use-vllm") and not dict.__contains__(entries, short):
            raise UserError(f"{name} cannot be served through vLLM, which shows no attention; leave out --use-vllm.")
    line = line.replaced("--data", {name: list(members) or [name] for name, members in ours.items()})
    line = line.replaced("--model", {name: [short] for name, short in shorts.items()})
    with _command_line([PROGRAM, *line.words]), _gloo_without_gpu(), _held(opened):
        pairs = [(model, name) for model in line.values("--model") for name in line.values("--data")]
        pairs += configuration.pairs if configuration else []
        for model, name in pairs:
            if name in tasks:
                check_method(entries, model, opened[tasks[name]], made=configuration.models[model] if configuration else None)
        check_writable(work_dir())
        for model, name in pairs:
            made = configuration.models[model] if configuration else None
            check_reuse(entries, model, name, runs_model=line.values("--mode") != ["eval"], made=made)
            if name in LADDataset.tasks and DistributedContext.from_environment().is_main_process:
                check_files(model, name)
        LADModel.refusals.clear()
        module.main()
        failed = {(model, name): lines for model, name in pairs if (lines := faults(model, name))}
    if failed:
        text = f"{len(failed)} of the combinations failed. {' '.join(line for lines in failed.values() for line in lines)}"
        # What our model refuses is a user error, as it is in `lad-eval run`; the rest is VLMEvalKit's.
        raise UserError(text) if failed.keys() <= LADModel.refusals else RunError(text)


def _put_first(folder: Path) -> None:
    if not (folder / "run.py").is_file() or not (folder / "vlmeval").is_dir():
        raise UserError(f"{folder} is not a source checkout of VLMEvalKit: it has no run.py next to a folder vlmeval.")
    loaded = sys.modules.get("vlmeval")
    here = str(folder.resolve())
    if loaded is not None and not str(loaded.__file__).startswith(here):
        raise UserError(f"Another VLMEvalKit is already imported ({loaded.__file__}); use --kit in a new process.")
    sys.path.insert(0, here)


def _main_module(kit_folder: str | Path | None) -> ModuleType:
    """The module whose `main` VLMEvalKit's own command runs; it assigns the GPUs to processes when it is imported."""
    place = kit("vlmeval").__file__
    root = Path(str(place)).parent.parent
    script = root / "run.py"
    if kit_folder is None and not (script.is_file() and not (root / "vlmeval" / "run.py").is_file()):
        return kit("vlmeval.run")
    spec = importlib.util.spec_from_file_location("kit_run", script)  # its logger hangs below "vlmeval"
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def _held(opened: Mapping[str, Task]) -> Iterator[None]:
    """The tasks stay open during the run."""
    from lad_eval.plugins.vlmevalkit.datasets import LADDataset

    LADDataset.opened.update(opened)
    try:
        yield
    finally:
        LADDataset.opened.clear()


@contextmanager
def _command_line(words: list[str]) -> Iterator[None]:
    """VLMEvalKit reads its flags from `sys.argv`."""
    before = sys.argv
    sys.argv = words
    try:
        yield
    finally:
        sys.argv = before


@contextmanager
def _gloo_without_gpu() -> Iterator[None]:
    """VLMEvalKit joins its processes through NCCL, which needs GPUs; without any, through gloo."""
    import torch
    import torch.distributed as dist

    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or torch.cuda.is_available():
        yield
        return
    join = dist.init_process_group

    def join_by_gloo(*args: Any, **options: Any) -> None:
        join(*args, **{**options, "backend": "gloo"})

    dist.init_process_group = join_by_gloo
    try:
        yield
    finally:
        dist.init_process_group = join
