"""VLMEvalKit's own main loop, with our tasks and models in it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from lad_eval.errors import UnknownNameError, UserError
from lad_eval.plugins.vlmevalkit.names import dataset_name, flat, parse
from lad_eval.plugins.vlmevalkit.pointers import read_pointer, work_dir
from lad_eval.tasks.registry import index, load_task, resolve, task_names

PROGRAM = "lad-eval vlmeval"


class RunError(UserError):
    """VLMEvalKit went on, but not everything it was asked to do was done."""

    exit_code = 1


def run(arguments: Sequence[str], kit_folder: str | Path | None = None) -> None:
    """Registers, and lets VLMEvalKit's own main loop do the rest.

    `--data` also takes our names of tasks, groups of them, and YAML files; `--model` also takes `HF:<hub id or folder>`.

    Args:
        arguments: VLMEvalKit's own flags and values.
        kit_folder: a source checkout of VLMEvalKit, whose run.py is run; None: the installed package.

    Raises:
        UserError: a name does not exist, VLMEvalKit is missing, or (RunError) a combination of model and data failed.
    """
    if kit_folder is not None:
        _put_first(Path(kit_folder))
    if importlib.util.find_spec("vlmeval") is None:
        raise UserError("VLMEvalKit is not installed: `pip install lad-eval[vlmeval]`, or name a source checkout with --kit.")
    words = list(arguments)
    data, models = _values(words, "--data"), _values(words, "--model")
    if not any(word.split("=")[0] == "--config" for word in words) and not (data and models):
        raise UserError("Name what to run: --data <data sets> --model <models>, or --config <file>.")
    tasks, strange = _tasks(data)
    for task in tasks.values():
        load_task(task)  # its faults are told now, and not after VLMEvalKit has been imported and a model loaded
    aliases: dict[str, str] = {}
    shorts = {name: flat(name, aliases) for name in models}
    for name in models:
        parse(name).make()
    module = _main_module(kit_folder)

    from lad_eval.plugins.vlmevalkit.entries import Entries, installed
    from lad_eval.plugins.vlmevalkit.registration import register

    register(*dict.fromkeys(tasks.values()))
    entries: Entries = installed()
    entries.aliases.update(aliases)
    _check_data(strange)
    if not any(word.split("=")[0] in ("--base-url", "--api-mode") for word in words):
        for short in shorts.values():
            entries[short]
    names = {name: [dataset_name(_stem(task)) for task in _expanded(name)] if name not in strange else [name] for name in data}
    words = _replaced(_replaced(words, "--data", names), "--model", {name: [short] for name, short in shorts.items()})
    with _command_line([PROGRAM, *words]), _gloo_without_gpu():
        for short in shorts.values():
            for dataset in [dataset for found in names.values() for dataset in found]:
                _check_settings(entries, short, dataset)
        module.main()
        failures = [line for short in shorts.values() for line in _failures(short)]
    if failures:
        raise RunError(f"{len(failures)} not done. {' '.join(failures)}")


def _put_first(folder: Path) -> None:
    if not (folder / "run.py").is_file() or not (folder / "vlmeval").is_dir():
        raise UserError(f"{folder} is no source checkout of VLMEvalKit: it has no run.py beside a folder vlmeval.")
    loaded = sys.modules.get("vlmeval")
    here = str(folder.resolve())
    if loaded is not None and not str(loaded.__file__).startswith(here):
        raise UserError(f"Another VLMEvalKit is imported already ({loaded.__file__}); start a new process for --kit.")
    sys.path.insert(0, here)


def _main_module(kit_folder: str | Path | None) -> ModuleType:
    """The module whose `main` VLMEvalKit's own command runs; it divides the GPUs among processes when it is imported."""
    from lad_eval.models.vlmeval.kit import kit

    place = kit("vlmeval").__file__
    root = Path(str(place)).parent.parent
    script = root / "run.py"
    if kit_folder is None and not (script.is_file() and not (root / "vlmeval" / "run.py").is_file()):
        return kit("vlmeval.run")
    spec = importlib.util.spec_from_file_location("vlmevalkit_run", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    kit("vlmeval.config")  # quietly, before run.py imports it
    spec.loader.exec_module(module)
    return module


def _values(words: Sequence[str], flag: str) -> list[str]:
    """What stands behind a flag that takes several values."""
    found: list[str] = []
    taking = False
    for word in words:
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            taking = name == flag
            found += [value] if taking and equals else []
        elif taking:
            found.append(word)
    return list(dict.fromkeys(found))


def _replaced(words: Sequence[str], flag: str, names: dict[str, list[str]]) -> list[str]:
    """The words with the values behind a flag replaced; the others as they are."""
    result: list[str] = []
    taking = False
    for word in words:
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            taking = name == flag
            result += [flag, *names[value]] if taking and equals else [word]
        else:
            result += names[word] if taking else [word]
    return result


def _tasks(data: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Data set name -> task for what is ours, and the names that are not."""
    ours: dict[str, str] = {}
    strange: list[str] = []
    for name in data:
        expanded = _expanded(name)
        if not expanded:
            strange.append(name)
        ours |= {dataset_name(_stem(task)): task for task in expanded}
    return ours, strange


def _expanded(name: str) -> list[str]:
    """The tasks that a name stands for: a data set's name, a task, a group, a YAML file; none for what is not ours."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        return resolve([name])
    known = index()
    if name in known.tasks or name in known.groups or any(sign in name for sign in "*?["):
        return resolve([name])
    return [task for task in task_names() if dataset_name(task) == name]


def _stem(task: str) -> str:
    return Path(task).stem if "/" in task or task.endswith((".yaml", ".yml")) else task


def _check_data(names: Sequence[str]) -> None:
    """Refuses data sets that neither VLMEvalKit nor we have; a table of the user's in VLMEvalKit's data folder counts."""
    from lad_eval.models.vlmeval.kit import kit

    known = {*kit("vlmeval.dataset").SUPPORTED_DATASETS, *kit("vlmeval.dataset.video_dataset_config").supported_video_datasets}
    folder = Path(kit("vlmeval.smp").LMUDataRoot())
    for name in names:
        if name not in known and not (folder / f"{name}.tsv").is_file():
            raise UnknownNameError("task", name, known)


def _check_settings(entries: Any, model: str, dataset: str) -> None:
    """Refuses to go on with results that an entry gave under other settings: VLMEvalKit would take them for these.

    Raises:
        UserError: the settings of the entry in VLMEvalKit's configuration have changed.
    """
    from lad_eval.plugins.vlmevalkit.entries import entry_settings

    if dict.__contains__(entries, model):
        return
    pointer, served = read_pointer(model, dataset), entries.served(model)
    if pointer is None or served.ours or dict(pointer.settings) == entry_settings(served.base):
        return
    raise UserError(
        f"{work_dir() / model} holds answers of {served.base} to {dataset} under other settings of its entry in VLMEvalKit's "
        "configuration; choose another --work-dir, or move that folder away."
    )


def _failures(model: str) -> list[str]:
    """What VLMEvalKit noted as failed for one model: it logs a fault and goes on."""
    from lad_eval.models.vlmeval.kit import kit

    if int(os.environ.get("RANK", "0")):
        return []
    root = work_dir() / model
    found = sorted(root.glob("**/status.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        return [f"{model}: VLMEvalKit left no status."]
    status = kit("vlmeval.smp").load(str(found[-1]))
    asked = status.get("datasets", {})
    return [
        f"{model} x {name}: {' '.join(str(of['error_message']).split())}" for name, of in asked.items() if of.get("error_message")
    ]


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
