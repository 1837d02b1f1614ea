"""The store of evidence: what goes in comes out, however often it is opened, and by however many processes."""

import json
import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_eval.errors import EvidenceError
from lad_eval.evidence.files import files_of
from lad_eval.evidence.store import EvidenceStore, read_evidence
from tests.evidence.store_rows import STORED, equal, keys, names, rows, store


@pytest.mark.parametrize("kind", [{}, {"delimited": False}, {"looked": False}, {"N": 12, "L": 5}, {"N": 2, "L": 1}])
@pytest.mark.parametrize("finished", [False, True])
def test_every_bit_comes_back_in_order(tmp_path, kind, finished):
    with store(tmp_path) as it:
        assert it.append(rows(range(4), **kind)) == 4
        assert it.append(rows(range(4, 7), **kind)) == 3
        if finished:
            it.finish()
        assert equal(it.load(), rows(range(7), **kind))
    assert equal(read_evidence(tmp_path), rows(range(7), **kind))
    assert names(tmp_path) == (["evidence.parquet"] if finished else ["evidence.jsonl"])


finite = st.floats(max_value=0, allow_infinity=False)


small = st.floats(0, 1, width=32)


@settings(max_examples=30)
@given(st.lists(st.tuples(finite, finite, small, small, st.floats(0, 1e200), st.text(max_size=5)), min_size=1, max_size=4))
def test_any_number_and_any_name_comes_back(tmp_path_factory, drawn):
    a, b, c, d, seconds, ids = zip(*drawn, strict=True)
    evidence = rows(
        range(len(drawn)),
        log_probs=list(zip(a, b, strict=True)),
        attention=np.array([c, d]).T[:, None, :],
        attention_delimited=np.array([d, c]).T[:, None, :],
        perm=[[1, 0]] * len(drawn),
        gold_position=[0] * len(drawn),
        seconds=seconds,
        sample_id=[i.replace("\0", "") for i in ids],
    )
    folder = tmp_path_factory.mktemp("any")
    with store(folder) as it:
        it.append(evidence)
        assert equal(it.load(), evidence)
        it.finish()
        assert equal(it.load(), evidence)


def test_attention_is_kept_in_the_recorders_precision(tmp_path):
    fine = np.full((1, 2, 3), 1 / 3)
    with store(tmp_path) as it:
        it.append(rows([0], attention=fine, attention_delimited=fine))
        np.testing.assert_array_equal(it.load().attention, fine.astype(np.float32))


def test_the_files_can_be_read_without_this_package(tmp_path):
    with store(tmp_path, task={"task": "t"}) as it:
        it.append(rows(range(3)))
        header, first, *_ = map(json.loads, it.path.read_text().splitlines())
        assert len(header.pop("checksum")) == len(first["checksum"]) == 16
        assert header == {
            "format": 1, "fingerprint": STORED, "task": {"task": "t"}, "candidates": 3, "layers": 2,
        }  # fmt: skip
        assert first["log_probs"] == rows([0]).log_probs[0].tolist()
        it.finish()
    table = pd.read_parquet(tmp_path / "evidence.parquet")
    assert table["key"].tolist() == sorted(keys(range(3)))
    np.testing.assert_array_equal(np.stack(table["attention"]).reshape(3, 2, 3), rows(range(3)).attention)


def test_of_equal_keys_the_first_stays_within_a_batch_between_batches_and_between_files(tmp_path):
    other = rows(range(3), seconds=[9.0] * 3)
    with store(tmp_path) as it:
        assert it.append(rows([0, 1, 0])) == 2
        assert it.append(other) == 1
        assert it.append(other) == 0
    with store(tmp_path, rank=0) as it:
        assert it.append(other) == 0
    content = (tmp_path / "evidence.jsonl").read_bytes()
    (tmp_path / "evidence.rank4.jsonl").write_bytes(content.replace(b'"seconds": 9.0', b'"seconds": 5.0'))
    assert read_evidence(tmp_path).seconds.tolist() == [*rows([0, 1]).seconds.tolist(), 9.0]


def test_keys_are_known_before_and_after_opening_again_and_finishing(tmp_path):
    with store(tmp_path) as it:
        assert it.keys() == frozenset()
        it.append(rows(range(3)))
        assert it.keys() == keys(range(3))
    with store(tmp_path) as it:
        assert it.keys() == keys(range(3))
        it.finish()
        assert it.keys() == keys(range(3))
    with store(tmp_path) as it:
        assert it.keys() == keys(range(3))


def test_more_may_be_asked_after_the_end(tmp_path):
    with store(tmp_path) as it:
        it.append(rows(range(3)))
        it.finish()
    with store(tmp_path) as it:
        assert it.append(rows(range(5))) == 2
        assert names(tmp_path) == ["evidence.jsonl", "evidence.parquet"]
        assert equal(it.load(), rows(range(5)))
        it.finish()
    assert names(tmp_path) == ["evidence.parquet"]
    assert equal(read_evidence(tmp_path), rows(range(5)))


def test_finishing_twice_changes_nothing(tmp_path):
    with store(tmp_path) as it:
        it.append(rows(range(3)))
        before = it.finish().stat()
        assert it.finish().stat() == before


def test_an_end_that_was_interrupted_between_its_steps_is_made_up_for(tmp_path):
    with store(tmp_path) as it:
        it.append(rows(range(3)))
        lines = it.path.read_bytes()
        it.finish()
    (tmp_path / "evidence.jsonl").write_bytes(lines)
    for left in (".evidence.parquet.new", ".evidence.parquet.ab12cd34.part"):
        (tmp_path / left).write_bytes(b"half")
        os.utime(tmp_path / left, (0, 0))
    with store(tmp_path) as it:
        assert equal(it.load(), rows(range(3)))
        it.finish()
    assert names(tmp_path) == ["evidence.parquet"]
    assert [p.name for p in tmp_path.glob(".*.*")] == [".evidence.lock"]


def test_an_empty_batch_writes_nothing(tmp_path):
    with store(tmp_path) as it:
        assert it.append(rows([])) == 0
        assert names(tmp_path) == []
        for act in (it.load, it.finish):
            with pytest.raises(EvidenceError, match="There is no evidence in"):
                act()


@pytest.mark.parametrize("debris", [None, b"[]\n", b'{"format": 9}\n'])
def test_a_store_opened_afresh_asks_nothing_of_what_was_there(tmp_path, debris):
    with EvidenceStore(tmp_path, {"model": "other"}) as it:
        it.append(rows(range(3), N=5, fingerprint={}))
    if debris:
        (tmp_path / "evidence.rank0.jsonl").write_bytes(debris)
    with store(tmp_path, prepare=lambda: [file.unlink() for file in files_of(tmp_path)]) as it:
        assert it.keys() == frozenset()
        it.append(rows([0]))
    assert equal(read_evidence(tmp_path), rows([0]))
    with store(tmp_path), pytest.raises(EvidenceError, match="Another run"):
        store(tmp_path, prepare=lambda: pytest.fail("the folder is not this one's")).open()
    assert len(read_evidence(tmp_path)) == 1


def test_a_store_that_is_not_open_does_nothing(tmp_path):
    it = store(tmp_path / "new")
    for act in (lambda: it.append(rows([0])), it.finish):
        with pytest.raises(RuntimeError, match="not open"):
            act()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("worlds", [(2,), (3, 2), (2, None, 5), (None, 4), (1, 2, 3)])
def test_resuming_with_another_number_of_processes_repeats_nothing(tmp_path, worlds):
    asked = []
    for turn, world in enumerate(worlds):
        stores = [store(tmp_path, rank=rank) for rank in ([None] if world is None else range(world))]
        for it in stores:
            it.open()
        for rank, it in enumerate(stores):
            have = it.keys()
            mine = [i for i in range(6 * (turn + 1)) if i // 2 % len(stores) == rank]
            todo = [i for i in mine if f"{i:032x}" not in have]
            asked += todo
            it.append(rows(todo))
            it.close()
    assert sorted(asked) == list(range(6 * len(worlds)))
    with store(tmp_path) as it:
        assert len(it.load()) == 6 * len(worlds)
        it.finish()
    assert names(tmp_path) == ["evidence.parquet"]
    every = list(range(6 * len(worlds)))
    assert equal(read_evidence(tmp_path).select_keys([f"{i:032x}" for i in every]), rows(every))


def test_ranks_are_counted_and_not_spelled(tmp_path):
    for rank in (10, 2):
        with store(tmp_path, rank=rank) as it:
            it.append(rows([rank]))
    assert read_evidence(tmp_path).key.tolist() == [f"{2:032x}", f"{10:032x}"]


def test_another_ranks_damaged_line_is_left_to_it_and_reported_when_joined(tmp_path, caplog):
    with store(tmp_path, rank=1) as it:
        it.append(rows(range(3)))
        content = it.path.read_bytes()
        it.path.write_bytes(content[:-9])
    with store(tmp_path, rank=0) as it:
        assert it.keys() == keys(range(2))
        assert caplog.text == ""
        it.append(rows([2]))
        it.finish()
    assert "evidence.rank1.jsonl: line 4 is damaged and left out" in caplog.text
    assert len(read_evidence(tmp_path)) == 3
