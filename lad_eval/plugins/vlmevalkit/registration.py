"""Makes VLMEvalKit know our tasks and models."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lad_eval.errors import UserError
from lad_eval.models.vlmeval.kit import kit
from lad_eval.plugins.vlmevalkit.names import dataset_name, stem
from lad_eval.tasks.registry import load_spec, resolve, task_names


def register(*tasks: str | Path) -> list[str]:
    """Adds the bundled tasks as data sets and our models as entries of `supported_VLM`; imports VLMEvalKit, some 20 seconds.

    May be called again, also for more tasks. VLMEvalKit has no plugin hook, so its public registries are changed in place.

    Args:
        tasks: tasks to name: names, groups, or YAML files of your own.

    Returns:
        The data sets' names of `tasks`.

    Raises:
        UserError: VLMEvalKit is missing, a task does not exist, or its name cannot be a data set's.
    """
    resolved = resolve([str(task) for task in tasks]) if tasks else []
    for task in resolved:
        load_spec(task)
    with suppress(UserError):
        # Imported first: it assigns the GPUs to the processes of `torchrun`. A source checkout does not have this module.
        kit("vlmeval.run")
    module = kit("vlmeval.dataset")
    from lad_eval.plugins.vlmevalkit.datasets import LADDataset
    from lad_eval.plugins.vlmevalkit.entries import LADModel, installed

    installed()
    known = LADDataset.tasks
    names = {dataset_name(task): task for task in task_names()}
    chosen = {dataset_name(stem(task)): task for task in resolved}
    for name, task in {**names, **chosen}.items():
        if name in known and known[name] != task and name in chosen:
            raise UserError(f"Two tasks would be the data set {name}: {known[name]} and {task}; rename one of the files.")
        if name not in known and name in module.SUPPORTED_DATASETS:
            raise UserError(f"VLMEvalKit has a data set {name} of its own; rename the file of the task {task}.")
        if name not in known:
            known[name] = task
            module.SUPPORTED_DATASETS.append(name)
    if LADDataset not in module.DATASET_CLASSES:
        module.DATASET_CLASSES.append(LADDataset)
    # A --config file names classes, which are looked up in these two modules.
    vars(module)["LADDataset"] = LADDataset
    vars(kit("vlmeval.vlm"))["LADModel"] = LADModel
    return list(chosen)
