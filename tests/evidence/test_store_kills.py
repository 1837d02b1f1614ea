"""Processes that are killed, two runs at once, and disks that are full."""

import inspect
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lad_eval
from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence.store import read_evidence
from tests.evidence.store_rows import PRINT, equal, keys, rows, store

# ---------------------------------------------------------------- death at any moment


@pytest.mark.usefixtures("quick_disk")
def test_cut_at_any_byte_all_whole_rows_are_kept_the_rest_is_reported_and_nothing_is_repeated(tmp_path, caplog):
    with store(tmp_path) as it:
        it.append(rows(range(2)))
        safe = it.path.stat().st_size
        it.append(rows(range(2, 4)))
        content = it.path.read_bytes()
    ends = [i for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(safe, len(content) + 1):
        whole = sum(end <= cut for end in ends) - 1  # the header is a line too; without its line break a row is whole
        it.path.write_bytes(content[:cut])
        caplog.clear()
        with store(tmp_path) as it:
            assert it.keys() == keys(range(whole)), cut
            assert ("damaged" in caplog.text) == (cut not in ends and cut - 1 not in ends), cut
            if cut % 50 == 0 or cut - safe < 3 or len(content) - cut < 3:
                assert it.append(rows(range(6))) == 6 - whole
                assert equal(it.load(), rows(range(6)))


@pytest.mark.usefixtures("quick_disk")
def test_cut_within_the_first_write_at_any_byte(tmp_path, caplog):
    with store(tmp_path) as it:
        it.append(rows([0], L=1))
        content = it.path.read_bytes()
    header = content.index(b"\n")
    for cut in range(len(content)):
        it.path.write_bytes(content[:cut])
        caplog.clear()
        with store(tmp_path) as it:
            assert it.keys() == (keys([0]) if cut >= len(content) - 1 else frozenset())
            assert bool(caplog.text) == (0 < cut < header or header + 1 < cut < len(content) - 1), cut
            if cut % 40 == 0 or abs(cut - header) < 3:
                it.append(rows([0, 1], L=1))
                assert equal(it.load(), rows([0, 1], L=1))


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.binary(max_size=40))
def test_debris_after_a_cut_is_removed(tmp_path_factory, where, debris):
    folder = tmp_path_factory.mktemp("debris")
    with store(folder) as it:
        it.append(rows(range(3)))
        content = it.path.read_bytes()
        header = content.index(b"\n") + 1
        cut = header + where % (len(content) - header)
        it.path.write_bytes(content[:cut] + b"\0" * 7 + debris)
    with store(folder) as it:
        kept = it.keys()
        assert kept == keys(range(len(kept)))
        assert len(kept) == content[:cut].count(b"\n") - 1
        assert it.append(rows(range(4))) == 4 - len(kept)
        assert equal(it.load(), rows(range(4)))


def test_a_damaged_line_between_whole_ones_is_reported_and_asked_again(tmp_path, caplog):
    with store(tmp_path) as it:
        it.append(rows(range(4)))
        lines = it.path.read_bytes().split(b"\n")
        lines[2] = lines[2][:40]
        lines[3] = lines[3].replace(b'"perm": [', b'"perm": [7, ')
        it.path.write_bytes(b"\n".join(lines))
    with caplog.at_level(logging.WARNING), store(tmp_path) as it:
        assert "lines 3, 4 are damaged and left out; the requests are run again" in caplog.text
        assert it.keys() == keys([0, 3])
        assert it.append(rows(range(4))) == 2
        assert equal(it.load().select_keys(sorted(keys(range(4)))), rows(range(4)))


WRITER = f"""
import json, sys
import numpy as np
from lad_eval.evidence.table import Evidence
from lad_eval.evidence.store import EvidenceStore
PRINT = {PRINT!r}
{inspect.getsource(rows)}
with EvidenceStore(sys.argv[1], PRINT) as it:
    start = len(it.keys())
    print("open", start, flush=True)
    for i in range(start, 100000, 3):
        assert it.append(rows(range(i, i + 3))) == 3
        print(i + 3, flush=True)
"""


def test_a_process_killed_while_it_writes_loses_no_batch_it_had_written(tmp_path):
    root = str(Path(lad_eval.__file__).parent.parent)
    promised = 0
    for turn in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )
        assert writer.stdout.readline().split() == ["open", str(promised)]
        said = [writer.stdout.readline() for _ in range(3 + 5 * turn)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.read().splitlines()
        writer.wait()
        with store(tmp_path) as it:
            promised = len(it.keys())
            assert 0 <= promised - int(said[-1]) <= 3
            assert equal(it.load(), rows(range(promised)))


# ---------------------------------------------------------------- two runs at once, and disks


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
