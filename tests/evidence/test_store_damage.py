"""The store of evidence: cut, killed or damaged, it gives whole rows and never others."""

import base64
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lad_eval
from lad_eval.errors import EvidenceError
from lad_eval.evidence.store import EvidenceStore, read_evidence
from tests.evidence.store_rows import PRINT, equal, keys, rows, store


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


def flipped(content, bit):
    at = bit // 8
    return content[:at] + bytes([content[at] ^ (1 << bit % 8)]) + content[at + 1 :]


@pytest.mark.usefixtures("quick_disk")
def test_no_flipped_bit_of_a_line_is_ever_another_row(tmp_path, caplog):
    with store(tmp_path) as it:
        it.append(rows(range(3), N=2, L=1))
        path, whole = it.path, it.path.read_bytes()
    right, start = rows(range(3), N=2, L=1), whole.index(b"\n") + 1
    random = np.random.default_rng(0)
    for bit in random.choice(np.arange(8 * start, 8 * len(whole)), 400, replace=False).tolist():
        path.write_bytes(flipped(whole, bit))
        caplog.clear()
        found = read_evidence(tmp_path)
        assert equal(found, right.select_keys(found.key.tolist()))
        assert len(found) < 3
        assert "left out" in caplog.text


@pytest.mark.usefixtures("quick_disk")
def test_no_flipped_bit_of_a_header_is_ever_another_model(tmp_path):
    with store(tmp_path) as it:
        it.append(rows(range(2), N=2, L=1))
        path, whole = it.path, it.path.read_bytes()
    for bit in range(8 * whole.index(b"\n")):
        path.write_bytes(flipped(whole, bit))
        try:
            found = read_evidence(tmp_path)
        except EvidenceError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:  # the word "checksum" was hit, so that the file passes for an old one: its rows still carry their own
            assert equal(found, rows(range(2), N=2, L=1))


def test_no_flipped_bit_of_a_finished_file_is_ever_other_evidence(tmp_path):
    with store(tmp_path) as it:
        it.append(rows(range(3), N=2, L=1))
        path = it.finish()
    whole, unnoticed = path.read_bytes(), 0
    for bit in np.random.default_rng(0).choice(8 * len(whole), 600, replace=False).tolist():
        path.write_bytes(flipped(whole, bit))
        try:
            found = read_evidence(tmp_path)
        except EvidenceError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            unnoticed += 1
            assert equal(found, rows(range(3), N=2, L=1))
    assert unnoticed < 500  # most of such a small file are statistics of its columns, which nobody reads


def test_rows_of_another_models_file_are_no_rows_of_this_one(tmp_path, caplog):
    for name, fingerprint in (("one", PRINT), ("other", {**PRINT, "dtype": "bfloat16"})):
        with EvidenceStore(tmp_path / name, fingerprint) as it:
            it.append(rows(range(3), fingerprint=fingerprint))
    mine, other = (tmp_path / name / "evidence.jsonl" for name in ("one", "other"))
    lines = mine.read_bytes().split(b"\n")
    lines[2] = other.read_bytes().split(b"\n")[2]
    mine.write_bytes(b"\n".join(lines))
    assert read_evidence(tmp_path / "one").key.tolist() == sorted(keys([0, 2]))
    assert "line 3 is damaged and left out" in caplog.text


@pytest.mark.parametrize(
    ("change", "whole"),
    [
        ({}, True),
        ({"gold_position": 3}, False),
        ({"gold_position": -1}, False),
        ({"gold_position": 0.5}, False),
        ({"gold_position": True}, False),
        ({"gold_position": 10**400}, False),
        ({"perm": [0, 0, 1]}, False),
        ({"perm": [0, 1, 3]}, False),
        ({"log_probs": [-1.0, -1.0, 0.1]}, False),
        ({"log_probs": [-1.0, -1.0, None]}, False),
        ({"log_probs": [-1.0, -1.0]}, False),
        ({"log_probs": [0, -1, -1e308]}, True),
        ({"forward_passes": -1}, False),
        ({"seconds": -0.1}, False),
        ({"seconds": "1"}, False),
        ({"split": "train"}, False),
        ({"key": ""}, False),
        ({"key": 7}, False),
        ({"sample_id": None}, False),
        ({"attention": "!" * 32}, False),
        ({"attention": base64.b64encode(np.full(6, np.nan, "<f4").tobytes()).decode()}, False),
        ({"attention": base64.b64encode(np.full(6, -0.5, "<f4").tobytes()).decode()}, False),
        ({"attention": base64.b64encode(np.full(6, 7.0, "<f4").tobytes()).decode()}, False),
        ({"attention": base64.b64encode(np.full(6, 0.25, "<f4").tobytes()).decode()}, True),
    ],
)
def test_lines_without_checksums_are_read_and_every_value_is_checked(tmp_path, change, whole):
    with store(tmp_path) as it:
        it.append(rows(range(3)))
        documents = [json.loads(line) for line in it.path.read_text().splitlines()]
        for document in documents:
            del document["checksum"]
        documents[1] |= change
        it.path.write_text("".join(f"{json.dumps(document)}\n" for document in documents))
    with store(tmp_path) as it:
        assert it.keys() == keys(range(0 if whole else 1, 3))
        it.append(rows(range(4)))
        it.finish()
    assert set(read_evidence(tmp_path).key.tolist()) == keys(range(4))
