"""Token maps in evidence: rows, files and their damage."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lad_eval.errors import EvidenceError
from lad_eval.evidence.store import EvidenceStore, read_evidence
from lad_eval.evidence.table import Evidence
from lad_eval.files.documents import CHECKSUM
from lad_eval.files.log import write_log

GRIDS = np.asarray([[[4, 2, 2], [3, 0, 0]], [[1, 1, 1], [6, 2, 3]]])
MAPS = [np.arange(7) / 8, np.arange(7) / 4]


def bare():
    return Evidence.from_arrays(np.log(np.full((2, 2), 0.5)), np.full((2, 1, 2), 0.25), [0, 1], ["a", "b"], key=["k0", "k1"])


def mapped():
    return bare().with_token_maps(MAPS, GRIDS)


def assert_same(evidence):
    np.testing.assert_array_equal(evidence.token_grid, GRIDS)
    for row, expected in zip(evidence.token_map, MAPS, strict=True):
        np.testing.assert_array_equal(row, expected)


def test_select_and_concatenate_keep_maps_with_their_rows():
    evidence = mapped()
    turned = Evidence.concatenate([evidence.select([1]), evidence.select([0])])
    assert_same(turned.select_keys(["k0", "k1"]))
    for parts in ([evidence, bare()], [bare(), evidence]):
        with pytest.raises(EvidenceError, match="cannot be mixed"):
            Evidence.concatenate(parts)


def test_logs_and_finished_files_round_trip(tmp_path):
    with EvidenceStore(tmp_path, {}) as store:
        store.append(mapped())
        assert_same(store.load())
        store.finish()
    assert_same(read_evidence(tmp_path).select_keys(["k0", "k1"]))
    with EvidenceStore(tmp_path, {}) as store:
        assert store.keys() == {"k0", "k1"}
        with pytest.raises(EvidenceError, match="with token maps"):
            store.append(bare())


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("token_grid", None),
        ("token_grid", [[4, 2, 2]]),
        ("token_grid", [[4, 2, 2], [3, 0]]),
        ("token_grid", [[4, 2, 2], [3, -1, 0]]),
        ("token_grid", [[4, 2, 3], [3, 0, 0]]),
        ("token_grid", [[5, 2, 2], [3, 0, 0]]),
        ("token_map", None),
        ("token_map", "AAAA"),
        ("token_map", "?" * 40),
    ],
)
def test_a_row_whose_map_is_damaged_is_left_out_and_the_others_stay(tmp_path, caplog, column, value):
    with EvidenceStore(tmp_path, {}) as store:
        store.append(mapped())
    path = tmp_path / "evidence.jsonl"
    header, first, second = (json.loads(line) for line in path.read_text().splitlines())
    path.unlink()
    write_log(path, {k: v for k, v in header.items() if k != CHECKSUM}, [{**plain(first), column: value}, plain(second)])
    read = read_evidence(tmp_path)
    assert read.key.tolist() == ["k1"]
    np.testing.assert_array_equal(read.token_map[0], MAPS[1])
    assert "line 2" in caplog.text


def plain(row):
    return {name: value for name, value in row.items() if name != CHECKSUM}


def test_without_maps_files_are_as_before(tmp_path):
    with EvidenceStore(tmp_path, {}) as store:
        store.append(bare())
    header, row = map(json.loads, (tmp_path / "evidence.jsonl").read_text().splitlines()[:2])
    assert not {name for name in (*header, *row) if "token" in name}


@pytest.mark.parametrize(
    ("maps", "grids", "text"),
    [
        (MAPS[:1], GRIDS, "rows"),
        ([MAPS[0][:-1], MAPS[1]], GRIDS, "tokens in row 0"),
        ([-MAPS[0], MAPS[1]], GRIDS, "not negative"),
        (MAPS, GRIDS + np.asarray([0, 9, 9]), "as many as its patches"),
    ],
)
def test_maps_that_do_not_fit_are_refused(maps, grids, text):
    with pytest.raises(EvidenceError, match=text):
        bare().with_token_maps(maps, grids)
