"""A run whose model is pruned: several decisions, replies, and the control that keeps everything."""

from __future__ import annotations

import numpy as np
import pytest

from lad_eval.errors import UserError
from lad_eval.evidence.store import read_evidence
from lad_eval.run.execute import run_tasks
from lad_eval.run.folder.files import read_run_json
from tests.run.conftest import only_run, settings

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")
ALL, ONE, QUARTER = "fastv(keep=1.0)", "fastv(keep=1)", "fastv(keep=0.25)"
METHODS = ("vanilla", ALL, ONE, QUARTER, f"{QUARTER}+lad", f"{QUARTER}+generate", "random-tokens(keep=0.25)+pride")


def test_pruned_conditions_serve_every_decision(counted, tmp_path):
    counted()
    rows = {row.method: row for row in run_tasks(settings(tmp_path, methods=METHODS, limit=2))}
    assert set(rows) == set(METHODS)
    folder = only_run(tmp_path)
    conditions = folder / "conditions"
    folders = {ALL: "fastv-keep-1.0", ONE: "fastv-keep-1", QUARTER: "fastv-keep-0.25"}
    assert {path.name for path in conditions.iterdir()} == {*folders.values(), "random-tokens-keep-0.25"}
    plain = read_evidence(folder)
    keys = plain.key.tolist()
    pruned = {name: read_evidence(conditions / place).select_keys(keys) for name, place in folders.items()}
    np.testing.assert_array_equal(pruned[ALL].log_probs, plain.log_probs)
    np.testing.assert_array_equal(pruned[ALL].attention, plain.attention)
    for name in (ONE, QUARTER):
        assert np.abs(pruned[name].log_probs - plain.log_probs).max() > 1e-4
        np.testing.assert_allclose(pruned[name].attention[:, :2], plain.attention[:, :2], atol=1e-6)
        # Of the third layer's attention less is left for the images.
        assert (pruned[name].attention[:, 2].sum(axis=-1) < plain.attention[:, 2].sum(axis=-1)).all()
    document = read_run_json(folder / "metrics.json")["methods"][f"{QUARTER}+lad"]["condition"]["intervention"]
    assert {name: document[name] for name in ("name", "keep", "keep_is", "layer")} == {
        "name": "fastv",
        "keep": 0.25,
        "keep_is": "share",
        "layer": 2,
    }


@pytest.mark.parametrize(
    ("methods", "left"),
    [
        (("fastv(layer=99)",), []),
        (("fastv(layer=99)+generate",), []),
        (("fastv(keep=9999)",), []),
        (("vanilla", "fastv(layer=99)"), ["evidence.jsonl", "spec.json", "task.json"]),
    ],
)
def test_a_refused_pruner_leaves_nothing_but_answers(counted, tmp_path, methods, left):
    counted()
    with pytest.raises(UserError, match=r"cannot prune before layer 99|cannot keep 9999"):
        run_tasks(settings(tmp_path / "runs", methods=methods, limit=1))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock") == left
    assert not list(tmp_path.rglob("conditions"))
    assert bool(left) == (tmp_path / "runs").exists()
