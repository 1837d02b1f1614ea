"""One append-only log under evidence and replies: a batch is there as a whole or not at all, and what a kill left is cut off."""

import os

import pytest

from lad_eval.errors import DamagedError, UserError
from lad_eval.files import log

HEADER = {"format": 1, "made by": "m"}
ROWS = [{"key": "a", "value": 1.5}, {"key": "b", "value": -0.1}, {"key": "c", "value": 1e-300}]


def read(path):
    return log.read_log(path, lambda document, path: document, lambda row, header: "key" in row)


@pytest.fixture
def path(tmp_path):
    path = log.rank_path(tmp_path, "rows", None)
    log.append(path, HEADER, ROWS[:2])
    log.append(path, HEADER, ROWS[2:])
    return path


def test_rows_come_back_below_one_header(path):
    contents = read(path)
    assert (contents.header, contents.rows, contents.damaged, contents.cut) == (HEADER, ROWS, [], False)
    assert (contents.end, contents.size) == (path.stat().st_size - 1, path.stat().st_size)


def test_wherever_a_kill_cuts_it_off_the_whole_rows_stay_and_it_can_be_appended_to(path):
    whole = path.read_bytes()
    ends = [at for at, letter in enumerate(whole) if letter == ord("\n")]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        n_whole = sum(end <= size for end in ends)  # a line without its line break is whole
        contents = read(path)
        assert contents.rows == ROWS[: max(0, n_whole - 1)], size
        log.repair(path, contents)
        log.append(path, HEADER, ROWS[max(0, n_whole - 1) :])
        assert path.read_bytes() == whole, size


def test_a_batch_that_the_disk_does_not_take_leaves_nothing(path, monkeypatch):
    whole = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"^Cannot write .*rows\.jsonl: No space left on device\. What is stored there is safe;"):
        log.append(path, HEADER, ROWS)
    with pytest.raises(UserError, match="No space left on device"):
        log.write_log(path, HEADER, ROWS[:1])
    assert path.read_bytes() == whole
    assert list(path.parent.iterdir()) == [path]


def test_a_row_below_another_header_does_not_count(path, tmp_path):
    other = tmp_path / "other.jsonl"
    log.append(other, {**HEADER, "made by": "n"}, ROWS)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = other.read_bytes().splitlines(keepends=True)[2]
    path.write_bytes(b"".join(lines))
    contents = read(path)
    assert (contents.rows, contents.damaged, contents.cut) == ([ROWS[0], ROWS[2]], [3], False)
    assert log.left_out(contents.damaged) == "line 3 is damaged and left out"


def test_only_a_last_line_that_is_damaged_may_be_one_that_is_being_written(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.5", b"2.5")[:-1])  # line 2 is wrong, line 4 lacks its line break and is whole
    assert not read(path).cut
    assert log.warn_of_damage(path, read(path))
    path.write_bytes(content[:-2])
    assert read(path).cut
    assert not log.warn_of_damage(path, read(path))


def test_a_file_without_its_header_is_refused_and_can_be_set_aside_again_and_again(path):
    for name in ("rows.jsonl.damaged", "rows.jsonl.damaged1", "rows.jsonl.damaged2"):
        path.write_bytes(b"{\n")
        with pytest.raises(DamagedError, match="its first line, which says what produced the rows, is damaged") as error:
            read(path)
        log.set_aside(path, error.value)
        assert path.with_name(name).read_bytes() == b"{\n"
        assert not path.exists()


def test_files_of_ranks_come_in_the_order_of_their_numbers_and_no_others(tmp_path):
    for rank in (None, 10, 2, 0):
        log.append(log.rank_path(tmp_path, "rows", rank), HEADER, [])
    for stranger in ("rows.rankx.jsonl", "rows.more.rank1.jsonl", "rows.rank1.jsonl.damaged"):
        (tmp_path / stranger).touch()
    names = [path.name for path in log.rank_paths(tmp_path, "rows")]
    assert names == ["rows.jsonl", "rows.rank0.jsonl", "rows.rank2.jsonl", "rows.rank10.jsonl"]
