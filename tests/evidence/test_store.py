import base64
import inspect
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lad_eval
from lad_eval.errors import EvidenceError, UserError
from lad_eval.evidence.files import files_of
from lad_eval.evidence.store import EvidenceStore, read_evidence
from lad_eval.evidence.table import Evidence

PRINT = {"model": "m", "dtype": "float32", "sizes": (336, 336)}
STORED = json.loads(json.dumps(PRINT))


def rows(numbers, N=3, L=2, *, looked=True, delimited=True, **columns):
    """Rows whose content follows from their numbers; attention as a recorder gives it, in float32."""
    numbers = list(numbers)
    draws = [np.random.default_rng(i) for i in numbers]
    shape = (len(numbers), L, N)

    def spans():
        return np.array([d.random((L, N)) for d in draws]).reshape(shape).astype(np.float32).astype(np.float64)

    given = {
        "log_probs": np.array([np.log(d.dirichlet(np.ones(N))) for d in draws]).reshape(-1, N),
        "attention": spans() if looked else None,
        "gold_position": [i % N for i in numbers],
        "sample_id": [f"sämple {i // 2}" for i in numbers],
        "attention_delimited": spans() if looked and delimited else None,
        "perm": np.array([d.permutation(N) for d in draws]).reshape(-1, N),
        "split": ["calibration" if i % 5 == 0 else "test" for i in numbers],
        "key": [f"{i:032x}" for i in numbers],
        "forward_passes": [1 + i % 3 for i in numbers],
        "seconds": [d.random() for d in draws],
        "fingerprint": PRINT,
    }
    return Evidence.from_arrays(**{**given, **columns})


def equal(a, b):
    assert a.fingerprint == b.fingerprint or a.fingerprint == json.loads(json.dumps(b.fingerprint))
    for name in vars(a):
        left, right = getattr(a, name), getattr(b, name)
        if name != "fingerprint" and left is not None:
            np.testing.assert_array_equal(left, right, err_msg=name)
            assert left.dtype.kind == right.dtype.kind
    return (a.attention is None) == (b.attention is None)


def keys(numbers):
    return {f"{i:032x}" for i in numbers}


def names(folder):
    return sorted(p.name for p in Path(folder).iterdir() if not p.name.startswith("."))


def store(folder, **more):
    return EvidenceStore(folder, PRINT, **more)


@pytest.fixture
def quick_disk(monkeypatch):
    """Thousands of openings need not wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


# ---------------------------------------------------------------- what goes in comes out


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


# ---------------------------------------------------------------- keys, resuming, finishing


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


def test_clearing_starts_afresh(tmp_path):
    with store(tmp_path) as it:
        it.append(rows(range(3)))
        it.finish()
        it.append(rows([7]))
        it.clear()
        assert names(tmp_path) == []
        assert it.append(rows(range(2), N=4)) == 2
    assert read_evidence(tmp_path).n_candidates == 4


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
    for act in (lambda: it.append(rows([0])), it.finish, it.clear):
        with pytest.raises(RuntimeError, match="not open"):
            act()
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- several processes


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


# ---------------------------------------------------------------- what does not belong together


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
        ("evidence.jsonl", b"[]\n", "its first line, which says what made the rows, is damaged"),
        ("evidence.jsonl", b'{"format": 2}\n', "has evidence format 2, and this version of lad_eval reads 1"),
        ("evidence.jsonl", b'{"format\n{"key": "k"}\n', "its first line, which says what made the rows, is damaged"),
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


# ---------------------------------------------------------------- two runs at once, and disks


def test_two_runs_at_once_on_a_folder_are_refused_in_one_line(tmp_path):
    with store(tmp_path) as it:
        for rank in (None, 0):
            with pytest.raises(EvidenceError, match=r"Another run is writing to .*; wait for its end, or choose another folder"):
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
