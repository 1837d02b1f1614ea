"""Each door's decisions, method -> "task sample order" -> 0-based position, with its standard errors where it has some."""

import json
import subprocess
import sys
from pathlib import Path

TASKS = ("scenes_random_n4", "scenes_adversarial_n4", "scenes_random_n8", "scenes_adversarial_n8")
METHODS = ("vanilla", "pride", "lad")
MODEL = "lad-tiny"
ORDERS = 5


def native(folder, limit):
    import pandas as pd

    from lad_eval.run.execute import Settings, run_tasks

    out = folder / "native-runs"
    run_tasks(Settings(MODEL, TASKS, METHODS, limit=limit, device="cpu", out=out, quiet=True))
    decisions = {method: {} for method in METHODS}
    for task in TASKS:
        (file,) = (out / MODEL / task).rglob("predictions.parquet")
        for row in pd.read_parquet(file).itertuples():
            decisions[row.method][f"{task} {row.sample_id} {row.permutation}"] = int(row.position)
    return decisions, {}


def vlmeval(folder, limit):
    import pandas as pd

    suffixes = {"vanilla": "+vanilla", "pride": "+PriDe", "lad": "+LAD"}
    names = {task: "ScenesRetrieval_" + "_".join(word.capitalize() for word in task.split("_")[1:]) for task in TASKS}
    work = folder / "vlmeval-runs"
    command = ["-m", "lad_eval", "vlmeval", "--data", *names.values(), "--model", *(MODEL + end for end in suffixes.values())]
    command += ["--work-dir", str(work), "--limit", str(limit * ORDERS)]
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    decisions = {}
    for method, end in suffixes.items():
        decisions[method] = {}
        for task, data in names.items():
            table = pd.read_excel(work / f"{MODEL}{end}" / f"{MODEL}{end}_{data}.xlsx")
            for row in table.itertuples():
                decisions[method][f"{task} {row.g_index} {row.perm_id}"] = int(row.prediction) - 1
    return decisions, {}


def lmms_eval(folder, limit):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from lad_eval.plugins.lmms_eval.launch import LMMS_EVAL
    from lad_eval.plugins.task_folder import write_tasks

    write_tasks(LMMS_EVAL, folder / "lmms-eval-tasks", TASKS)
    decisions = {}
    for method in METHODS:
        manager = TaskManager("ERROR", include_path=str(folder / "lmms-eval-tasks"), include_defaults=False)
        found = simple_evaluate(
            model="lad_eval",
            model_args=f"pretrained={MODEL},method={method},store={folder / 'lmms-eval-runs'}",
            tasks=list(TASKS),
            limit=limit * ORDERS,
            task_manager=manager,
            device="cpu",
            bootstrap_iters=0,
            batch_size=8,
        )
        decisions[method] = {
            f"{task} {sample['doc']['sample']} {sample['doc']['permutation']}": int(sample["filtered_resps"][0]) - 1
            for task in TASKS
            for sample in found["samples"][task]
        }
    return decisions, {}


def lm_eval(folder, limit):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from lad_eval.plugins.lm_eval.launch import LM_EVAL
    from lad_eval.plugins.lm_eval.model import LmEvalModel
    from lad_eval.plugins.task_folder import write_tasks

    write_tasks(LM_EVAL, folder / "lm-eval-tasks", TASKS)
    decisions, errors = {}, {}
    for method in METHODS:
        model = LmEvalModel(pretrained=MODEL, method=method, store=folder / "lm-eval-runs", batch_size=8)
        manager = TaskManager(include_path=str(folder / "lm-eval-tasks"), include_defaults=False)
        found = simple_evaluate(model, tasks=list(TASKS), limit=limit, task_manager=manager, log_samples=True)
        decisions[method] = {
            f"{task} {row['sample']} {row['permutation']}": int(reply) - 1
            for task in TASKS
            for sample in found["samples"][task]
            for row, reply in zip(sample["doc"]["orders"], sample["filtered_resps"], strict=True)
        }
        for task in TASKS:
            figures = found["results"][task]
            errors |= {f"{method} {task} {name}": figures[f"{name}_stderr,none"] for name in ("acc", "consistency", "flip")}
    return decisions, errors


def inspect_ai(folder, limit):
    from inspect_ai import eval as evaluate
    from inspect_ai.model import get_model

    decisions, errors = {}, {}
    for method in METHODS:
        model = get_model(f"lad_eval/{MODEL}", method=method, store=str(folder / "inspect-runs"), batch_size=8)
        names = [f"lad_eval/{task}" for task in TASKS]
        logs = evaluate(names, model=model, limit=limit, display="none", log_dir=str(folder / "inspect-logs"), max_tasks=1)
        decisions[method] = {}
        for task, log in zip(TASKS, logs, strict=True):
            for sample in log.samples:
                positions = sample.scores["over_orders"].metadata["positions"]
                for row, position in zip(sample.metadata["orders"], positions, strict=True):
                    decisions[method][f"{task} {row['sample']} {row['permutation']}"] = position
            stderr = {score.name: score.metrics["stderr"].value for score in log.results.scores}
            errors |= {f"{method} {task} {name}": stderr[name] for name in ("acc", "consistency", "flip")}
    return decisions, errors


DOORS = {"native": native, "vlmeval": vlmeval, "lmms-eval": lmms_eval, "lm-eval": lm_eval, "inspect": inspect_ai}


def record(door, folder, limit):
    """Runs one door and keeps what it decided."""
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    decisions, errors = DOORS[door](folder, limit)
    (folder / f"{door}.json").write_text(json.dumps({"decisions": decisions, "stderr": errors}))
