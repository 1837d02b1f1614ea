"""A run under attention between images: conditions with evidence of their own, joined with prompts, orders and decisions."""

from __future__ import annotations

import numpy as np
import pytest

from lad_eval.evidence.store import read_evidence
from lad_eval.run.execute import run_tasks
from tests.run.conftest import only_run, settings

pytestmark = pytest.mark.filterwarnings("ignore::lad_eval.methods.MethodWarning")
METHODS = ("vanilla", "capl", "capl+lad", "instruction+capl+majority", "truncated")


def test_open_and_closed_attention_serve_every_decision(counted, tmp_path):
    counted()
    rows = {row.method: row for row in run_tasks(settings(tmp_path, methods=METHODS, limit=2))}
    assert set(rows) == set(METHODS)
    folder = only_run(tmp_path)
    conditions = {path.name: path for path in (folder / "conditions").iterdir()}
    assert set(conditions) == {"capl", "instruction-capl", "truncated"}
    plain = read_evidence(folder)
    under = {name: read_evidence(conditions[name]).select_keys(plain.key.tolist()) for name in ("capl", "truncated")}
    for evidence in under.values():
        assert np.abs(evidence.log_probs - plain.log_probs).max() > 1e-4
    # The lowest layer's row of the last token, a text token, is that of the model's own mask.
    np.testing.assert_array_equal(under["capl"].attention[:, 0], plain.attention[:, 0])
