"""What the tests of the VLMEvalKit plug-in share: a small task, and readers of results."""

from functools import partial
from pathlib import Path

import pandas as pd

from lad_eval.cli.main import invoke

FEW = "source: scenes\nsetting: random\ncandidates: {n}\nsamples: 4\npermutations: {{count: 2}}\ncalibration: {{samples: 2}}\n"


def predictions(folder, model, data="Scenes_Few", form="xlsx"):
    path = folder / model / f"{model}_{data}.{form}"
    table = {"xlsx": pd.read_excel, "json": pd.read_json, "tsv": partial(pd.read_csv, sep="\t")}[form](path)
    return {(row.g_index, row.perm_id): str(row.prediction) for row in table.itertuples()}


def own_run(model, task, out, *options):
    """The same through `lad-eval run`: method -> answers."""
    words = [
        "--model",
        model,
        "--tasks",
        task,
        "--methods",
        "vanilla,pride,lad,permutation-average",
        "--runs",
        out,
        "--quiet",
        *options,
    ]
    assert invoke(["run", *words]) == 0
    (path,) = Path(out).rglob("predictions.parquet")
    tables = pd.read_parquet(path).groupby("method")
    return {name: {(row.sample_id, row.permutation): str(row.position + 1) for row in rows.itertuples()} for name, rows in tables}


def replies(folder, data):
    (path,) = (path for path in Path(folder).rglob(f"*_{data}.xlsx") if not path.is_symlink())
    table = pd.read_excel(path, dtype=str, keep_default_na=False)
    return path, dict(zip(table["index"], table["prediction"], strict=True))
