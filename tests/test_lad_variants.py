"""The variants of LAD that docs/methods.md reports and the package does not keep."""

import numpy as np
import pytest

pytest.importorskip("benchmarks.lad_variants", reason="benchmarks/ is not part of the installed package")

from benchmarks.lad_variants import VARIANTS, RowGainLAD, ShrunkLAD, curve, run
from lad_eval import evaluate
from lad_eval.methods import LAD
from lad_eval.methods.conformance import random_calibration, random_evidence


def test_each_variant_changes_what_it_says():
    rows = random_calibration()
    lad, row_gain, shrunk = (kind().calibrate(rows) for kind in (LAD, RowGainLAD, ShrunkLAD))
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_array_equal(row_gain.log_bias_[off], lad.log_bias_[off])
    assert (np.diag(row_gain.log_bias_) >= np.diag(lad.log_bias_) - 1e-12).all()
    spread = (lad.log_bias_ - lad.log_bias_.mean(axis=1, keepdims=True)).std(axis=0)
    np.testing.assert_allclose(shrunk.log_bias_.std(axis=0), spread * 5 / 7)  # five samples, k = 2


def test_a_curve_has_a_cell_a_size():
    rows, calibration = random_evidence(), random_calibration()
    for variant in VARIANTS.values():
        cells = curve(rows, calibration, variant, (1, 5), draws=2)
        assert len(cells) == 2
        assert all(0 <= float(cell.split(" / ")[0]) <= 100 for cell in cells)


def test_the_table_of_a_finished_run(tmp_path):
    result = evaluate("lad-tiny", "scenes_random_n4", methods=["lad"], limit=2, runs=tmp_path)
    table = run(result.folders["scenes_random_n4"], draws=2)
    assert table.columns == ["method", "n = 1", "n = 2", "n = 3", "n = 5"]
    assert [row[0] for row in table.rows] == list(VARIANTS)
    accuracy = result.to_frame().set_index("method").loc["lad", "accuracy"]
    assert dict(zip(VARIANTS, (row[-1] for row in table.rows), strict=True))["lad"].startswith(f"{accuracy:.2f} / ")
