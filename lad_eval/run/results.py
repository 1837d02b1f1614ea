"""What a run leaves for people and for later: its figures and its predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lad_eval.evidence import Evidence
from lad_eval.methods import Method
from lad_eval.run.asked import Asked
from lad_eval.run.decide import Decision
from lad_eval.run.figures import figures_of
from lad_eval.run.folder import METRICS, ResultsError, read_json
from lad_eval.run.provenance import checkout, versions
from lad_eval.run.spec import RunSpec
from lad_eval.run.told import Told

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1


def metrics_document(
    spec: RunSpec,
    asked: Asked,
    evidence: Evidence,
    methods: Mapping[str, Method],
    decisions: Mapping[str, Decision],
    *,
    seed: int,
    told: Told,
) -> dict[str, Any]:
    """`metrics.json`: what was run, on what, at what cost, and every figure with its interval, in points."""
    evaluated = evidence.select_keys(asked.evaluated)
    figures = {name: figures_of(decision, evaluated, asked, seed=seed) for name, decision in decisions.items()}
    used = {key for method in methods.values() for key in asked.seen_by(method)} | set(asked.calibration)
    rows = evidence.select(np.isin(evidence.key, np.asarray(sorted(used))))
    return {
        "format": FORMAT,
        "model": spec.model,
        "task": spec.task,
        "run": spec.digest,
        "limit": spec.limit,
        "candidates": evidence.n_candidates,
        "lad_eval": checkout(),
        "versions": versions(),
        "seeds": {"bootstrap": seed, "permutations": spec.definition.get("permutations", {}).get("seed")},
        "dtype": spec.fingerprint.get("dtype"),
        "attention_implementation": spec.fingerprint.get("attn_implementation"),
        **told.circumstances,
        "calibration": dict(told.calibration),
        "notes": list(told.notes),
        "data": dict(told.data),
        "counts": {
            "samples": len(np.unique(evaluated.sample_id)),
            "permutations": max(asked.permutation_index) + 1,
            "calibration_samples": len(np.unique(evidence.calibration.sample_id)),
            "asked": len(used),
            "answered": len(rows),
            "unparsable": {name: figure["unparsable"] for name, figure in figures.items()},
        },
        "forward_passes": {
            "evaluated": int(evaluated.forward_passes.sum()),
            "calibration": int(rows.calibration.forward_passes.sum()),
            "all": int(rows.forward_passes.sum()),
        },
        "seconds_of_model": float(rows.seconds.sum()),
        "methods": {
            name: {
                "parameters": json.loads(json.dumps(methods[name].get_params())),
                **figure,
            }
            for name, figure in figures.items()
        },
        "reported": json.loads(json.dumps(told.reported)),
    }


def predictions_table(asked: Asked, evidence: Evidence, decisions: Mapping[str, Decision]) -> pd.DataFrame:
    """`predictions.parquet`: a row a method and evaluated request; positions and images are counted from 0."""
    import pandas as pd

    evaluated = evidence.select_keys(asked.evaluated)
    rows = np.arange(len(evaluated))
    tables = [
        pd.DataFrame(
            {
                "method": name,
                "key": evaluated.key,
                "sample_id": evaluated.sample_id,
                "permutation": np.asarray(asked.permutation_index),
                "order": [" ".join(map(str, order)) for order in evaluated.perm.tolist()],
                "gold_position": evaluated.gold_position,
                "position": decision.position,
                "gold_image": evaluated.perm[rows, evaluated.gold_position],
                "image": evaluated.perm[rows, decision.position],
                "correct": decision.position == evaluated.gold_position,
                "log_proba": decision.log_proba.tolist(),
            }
        )
        for name, decision in decisions.items()
    ]
    table: pd.DataFrame = pd.concat(tables, ignore_index=True)
    return table


def stored_methods(folder: Path) -> list[str]:
    """Names of the methods that a run holds figures of; none if it is not finished."""
    path = folder / METRICS
    return list(read_json(path).get("methods", {})) if path.is_file() else []


def stored_metrics(folder: Path, methods: Mapping[str, Method]) -> dict[str, Any]:
    """A finished run's figures, as they stand.

    Raises:
        ResultsError: the run is not finished, or holds no figures of a method.
    """
    if not (folder / METRICS).is_file():
        raise ResultsError(f"The run in {folder} is not finished; --overwrite missing goes on with it.")
    metrics = read_json(folder / METRICS)
    if lacking := [name for name in methods if name not in metrics["methods"]]:
        raise ResultsError(f"The run in {folder} holds no figures of {', '.join(lacking)}; --overwrite missing adds them.")
    return metrics
