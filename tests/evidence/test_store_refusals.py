"""The store of evidence: what does not belong together, and what cannot be written, is one line."""

import os
import resource
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence.store import EvidenceStore, read_evidence
from tests.evidence.store_rows import PRINT, STORED, equal, keys, rows, store


def test_another_fingerprint_is_refused_by_every_kind_of_file_and_names_what_differs(tmp_path):
    changed = {**PRINT, "dtype": "bfloat16", "revision": "abc"}
    with store(tmp_path, task={"data": "d1"}) as it:
        it.append(rows([0]))
    for turn in range(2):
        with pytest.raises(EvidenceError) as caught:
            EvidenceStore(tmp_path, changed, task={"data": "d1"}).open()
        text = str(caught.value)
        assert "was made under another fingerprint: dtype is 'float32' and 'bfloat16', revision is missing and 'abc'" in text
        assert "--overwrite always" in text
        assert "\n" not in text
        with pytest.raises(EvidenceError, match="another task: data is 'd1' and 'd2'"):
            store(tmp_path, task={"data": "d2"}).open()
        with store(tmp_path, task={"data": "d1"}) as it:  # a refusal leaves the folder unlocked
            if turn == 0:
                it.finish()


def test_a_fingerprint_equal_in_json_is_equal(tmp_path):
    with store(tmp_path) as it:
        it.append(rows([0]))
    with EvidenceStore(tmp_path, STORED) as it:
        assert it.append(rows([1], fingerprint=STORED)) == 1


@pytest.mark.parametrize(
    ("evidence", "says"),
    [
        (
            rows([1], fingerprint={**PRINT, "dtype": "float16"}),
            "another fingerprint than the store's: dtype is 'float16' and 'float32'.",
        ),
        (rows([1], fingerprint={"seed": 1}), "seed is 1 and missing"),
        (rows([1], N=4), "holds evidence of 3 candidates and 2 layers, not of 4 candidates and 2 layers."),
        (rows([1], L=1), "not of 3 candidates and 1 layers."),
        (rows([1], looked=False), "not of 3 candidates and 0 layers."),
        (rows([1, 2], key=["a", ""]), "without request keys cannot be stored."),
        (rows([1], seconds=[np.nan]), "log_probs or seconds are not finite"),
    ],
)
def test_rows_that_do_not_belong_are_refused_and_nothing_is_written(tmp_path, evidence, says):
    with store(tmp_path) as it:
        it.append(rows([0]))
        before = it.path.read_bytes()
        with pytest.raises(EvidenceError) as caught:
            it.append(evidence)
        assert says in str(caught.value)
        assert it.path.read_bytes() == before
        assert it.keys() == keys([0])


def test_a_file_of_another_shape_is_refused(tmp_path):
    for rank, n in ((0, 3), (1, 4)):
        with store(tmp_path / str(rank), rank=rank) as it:
            it.append(rows([rank], N=n))
    (tmp_path / "1" / "evidence.rank1.jsonl").rename(tmp_path / "0" / "evidence.rank1.jsonl")
    with pytest.raises(
        EvidenceError, match=r"rank1.jsonl holds evidence of 4 candidates and 2 layers, the folder's other files do not"
    ):
        store(tmp_path / "0").open()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("evidence.jsonl", b'{"a": 1}\n', "does not begin with a header"),
        ("evidence.jsonl", b"[]\n", "its first line, which says what produced the rows, is damaged"),
        ("evidence.jsonl", b'{"format": 2}\n', "has evidence format 2, and this version of lad_eval reads 1"),
        ("evidence.jsonl", b'{"format\n{"key": "k"}\n', "its first line, which says what produced the rows, is damaged"),
        ("evidence.parquet", b"PAR1", "evidence.parquet is damaged, it cannot be read ("),
    ],
)
def test_a_file_that_is_no_evidence_is_told_and_kept_under_another_name(tmp_path, name, content, says, caplog):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(EvidenceError) as caught:
        read_evidence(tmp_path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content
    if "format 2" in says:  # of a later version, and not damaged
        with pytest.raises(EvidenceError, match=says):
            store(tmp_path).open()
        return
    with store(tmp_path) as it:
        assert it.keys() == frozenset()
        assert says in caplog.text
        assert f"it is set aside as {name}.damaged, and its requests are run again" in caplog.text
        it.append(rows(range(2)))
    assert path.with_name(f"{name}.damaged").read_bytes() == content
    assert len(read_evidence(tmp_path)) == 2


def test_a_parquet_file_of_other_origin_is_told(tmp_path):
    pd.DataFrame({"key": ["a"]}).to_parquet(tmp_path / "evidence.parquet")
    with pytest.raises(EvidenceError, match="does not begin with a header"):
        read_evidence(tmp_path)


def test_a_store_opened_in_one_thread_is_released_by_another(tmp_path):
    with ThreadPoolExecutor(1) as thread:
        opened = thread.submit(store(tmp_path).open).result()
        lock = opened._lock  # filelock 4 releases what nobody holds any more, earlier ones do not
        opened.close()
        with store(tmp_path) as it:
            assert it.keys() == set()
    assert not lock.is_locked


def test_two_runs_at_once_on_a_folder_are_refused_in_one_line(tmp_path):
    with store(tmp_path) as it:
        for rank in (None, 0):
            with pytest.raises(
                EvidenceError, match=r"Another run is writing to .*; wait until it has ended, or choose another folder"
            ):
                store(tmp_path, rank=rank).open()
        with store(tmp_path, rank=1) as other:
            other.append(rows([1]))
        it.append(rows([0]))
        assert len(read_evidence(tmp_path)) == 2  # reading needs no lock
    with store(tmp_path, rank=2), pytest.raises(EvidenceError, match="Another run"):
        store(tmp_path, rank=2).open()


def test_another_process_is_kept_out_and_its_death_opens_the_door(tmp_path):
    code = f"""
    import sys, time
    from lad_eval.evidence.store import EvidenceStore
    held = EvidenceStore({str(tmp_path)!r}, {{}}).open()
    print("in", flush=True)
    time.sleep(60)
    """
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "in\n"
    with pytest.raises(EvidenceError, match="Another run"):
        store(tmp_path).open()
    holder.kill()
    holder.wait()
    with store(tmp_path) as it:
        it.append(rows([0]))


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write to .*file.*: .*; mend this or choose another folder|Cannot write .*file"):
        store(tmp_path / "file" / "run").open()
    with pytest.raises(UserError, match="Cannot write"):
        store("/proc/none/run").open()


def test_a_full_disk_is_told_loses_nothing_and_appending_can_go_on(tmp_path):
    # A limit on file size is a disk that fills up in the middle of a write.
    with store(tmp_path) as it:
        it.append(rows(range(2)))
        before = it.path.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 150, hard))
        try:
            with pytest.raises(UserError, match=r"Cannot write .*evidence\.jsonl: File too large\. What is stored there is safe"):
                it.append(rows(range(2, 5)))
            assert it.path.read_bytes() == before
            assert it.keys() == keys(range(2))
            with pytest.raises(UserError, match=r"Cannot write .*evidence\.parquet"):
                it.finish()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert it.append(rows(range(2, 5))) == 3
        it.finish()
    assert equal(read_evidence(tmp_path), rows(range(5)))


def test_a_disk_that_is_full_from_the_first_byte_leaves_no_debris(tmp_path):
    with store(tmp_path) as it:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            with pytest.raises(UserError, match="Cannot write"):
                it.append(rows([0]))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert it.append(rows([0])) == 1
    assert equal(read_evidence(tmp_path), rows([0]))


def test_reading_a_folder_without_evidence_is_told(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(EvidenceError, match="There is no evidence in"):
            read_evidence(folder)


def test_a_batch_is_one_write_and_one_sync(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    with store(tmp_path) as it:
        it.append(rows([0]))
        monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), real(fd)))
        it.append(rows(range(1, 50)))
    assert len(synced) == 1
