"""Files of our own: whole or absent, and believed only if they are what was written."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lad_eval.errors import DamagedError, UserError
from lad_eval.files.atomic import Scratch, sweep, temporary_path, write_atomically
from lad_eval.files.checkpoints import weight_files
from lad_eval.files.documents import read_json, write_json
from lad_eval.files.lines import is_sealed, opened, salt_of, sealed
from lad_eval.files.tables import read_table, write_table
from lad_eval.files.tensors import read_tensors, tensors_as_bytes

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([True, False])}
DOCUMENT = {"name": "ü\udcff", "list": [1, 2.5, None, True], "deep": {"b": {"c": "d"}, "a": 1e-300}}


def old(path, seconds=3600):
    os.utime(path, (time.time() - seconds,) * 2)


class TestDocuments:
    def test_a_document_comes_back_without_its_checksum(self, tmp_path):
        write_json(tmp_path / "new" / "a.json", DOCUMENT)
        assert read_json(tmp_path / "new" / "a.json") == DOCUMENT
        assert json.loads((tmp_path / "new" / "a.json").read_text())["checksum"]

    def test_order_and_spaces_may_change_and_nothing_else(self, tmp_path):
        path = tmp_path / "a.json"
        write_json(path, {"a": 10, "b": [1, 2], "c": "x"})
        whole = path.read_text()
        path.write_text(json.dumps(dict(reversed(json.loads(whole).items()))))
        assert read_json(path) == {"a": 10, "b": [1, 2], "c": "x"}
        for before, after in (("10", "11"), ("1,", "1.5,"), ('"x"', '"y"'), ('"b"', '"e"'), ("2\n", "2, 3\n")):
            assert before in whole
            path.write_text(whole.replace(before, after, 1))
            with pytest.raises(UserError, match=r"a\.json .the letters.: it is not what was written, .* Write it again\.$"):
                read_json(path, what="the letters", cure="Write it again.")

    def test_every_flipped_bit_is_noticed_or_changes_nothing(self, tmp_path):
        path = tmp_path / "a.json"
        write_json(path, {"a": 10, "b": [1, 2.5], "c": "x"})
        whole, unnoticed = path.read_bytes(), 0
        for at in range(len(whole)):
            for bit in range(8):
                path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
                try:
                    found = read_json(path)
                except UserError:
                    continue
                unnoticed += 1
                assert {key: found[key] for key in "abc"} == {"a": 10, "b": [1, 2.5], "c": "x"}
        assert 0 < unnoticed < 150  # of 600: spaces that became other spaces, and letters of the word "checksum"


class TestLines:
    def test_a_line_comes_back_and_belongs_to_its_header(self):
        salt, other = salt_of({"model": "a"}), salt_of({"model": "b"})
        line = sealed({"a": [1.5, "ü"]}, salt)
        assert line.endswith(b'"}\n')
        assert opened(line[:-1], salt)["a"] == [1.5, "ü"]
        assert opened(line[:-1], other) is None

    def test_every_flipped_bit_is_noticed(self):
        line = sealed({"key": "k", "values": [0.5, -1.25]}, "salt")[:-1]
        found = {bit: opened(_flipped(line, bit), "salt", must=True) for bit in range(8 * len(line))}
        assert {bit: value for bit, value in found.items() if value is not None} == {}

    def test_lines_of_earlier_versions_are_read_where_the_file_has_no_checksums(self):
        line = b'{"a": 1}'
        assert opened(line) == {"a": 1}
        assert not is_sealed(line)
        assert opened(line, must=True) is None
        for broken in (b"", b"{", b"[1]", b"3", b'{"a": NaN}', b'{"a":' * 50_000, b"\xff{}"):
            assert opened(broken) is None


class TestTables:
    TABLE = pa.table(
        {
            "name": ["a", "ü", None],
            "number": [1.5, None, -0.0],
            "count": pa.array([1, 2, 3], pa.int64()),
            "right": [True, False, None],
            "fixed": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6.0)), 2),
            "lists": [[1.0], None, []],
            "nothing": pa.nulls(3),
        }
    )

    def test_values_and_document_come_back(self, tmp_path):
        write_table(tmp_path / "t.parquet", self.TABLE, {"run": "r"})
        table, document = read_table(tmp_path / "t.parquet", cure="x.")
        assert (table.to_pydict(), document) == (self.TABLE.to_pydict(), {"run": "r"})

    @pytest.mark.parametrize("column", TABLE.column_names)
    def test_another_value_in_any_column_is_noticed(self, tmp_path, column):
        path = tmp_path / "t.parquet"
        write_table(path, self.TABLE, {"run": "r"})
        metadata = read_table(path, cure="x.")[0].schema.metadata
        values = self.TABLE.to_pydict()
        values[column] = [values[column][1], *values[column][1:]] if column != "nothing" else [None, 1, None]
        if column == "number":
            values[column] = [1.5, None, 0.0]  # not the same bits
        changed = pa.table(values, schema=self.TABLE.schema if column != "nothing" else None)
        pa.parquet.write_table(changed.replace_schema_metadata(metadata), path)
        with pytest.raises(DamagedError, match=r"t\.parquet is damaged: it does not hold what was written; do it again\."):
            read_table(path, cure="do it again.")

    @pytest.mark.parametrize("change", ["rows", "order", "name", "document"])
    def test_so_are_rows_columns_and_the_document(self, tmp_path, change):
        path = tmp_path / "t.parquet"
        write_table(path, self.TABLE, {"run": "r"})
        table = read_table(path, cure="x.")[0]
        metadata = dict(table.schema.metadata)
        if change == "document":
            metadata[b"lad_eval"] = metadata[b"lad_eval"].replace(b'"r"', b'"s"')
        changed = {
            "rows": lambda: table.slice(0, 2),
            "order": lambda: table.select(table.column_names[::-1]),
            "name": lambda: table.rename_columns(["other", *table.column_names[1:]]),
            "document": lambda: table,
        }[change]()
        pa.parquet.write_table(changed.replace_schema_metadata(metadata), path)
        with pytest.raises(DamagedError, match="does not hold what was written"):
            read_table(path, cure="x.")

    def test_a_table_of_another_origin_has_no_document(self, tmp_path):
        pa.parquet.write_table(self.TABLE, tmp_path / "t.parquet")
        assert read_table(tmp_path / "t.parquet", cure="x.")[1] is None


class TestTensors:
    def test_tensors_and_metadata_come_back(self, tmp_path):
        (tmp_path / "t").write_bytes(tensors_as_bytes(TENSORS, {"kind": "k"}))
        tensors, metadata = read_tensors(tmp_path / "t")
        assert metadata == {"kind": "k"}
        assert {name: array.tolist() for name, array in tensors.items()} == {n: a.tolist() for n, a in TENSORS.items()}

    def test_every_flipped_bit_is_noticed_or_changes_nothing(self, tmp_path):
        path, whole = tmp_path / "t", tensors_as_bytes(TENSORS, {"kind": "k"})
        for bit in range(8 * len(whole)):
            path.write_bytes(_flipped(whole, bit))
            try:
                tensors, metadata = read_tensors(path)
            except ValueError:
                continue
            assert metadata["kind"] == "k"  # the word "checksum" alone was hit
            assert all(np.array_equal(tensors[name], array) for name, array in TENSORS.items())


class TestSweeping:
    def test_what_a_killed_process_left_goes_and_nothing_else(self, tmp_path):
        script = (
            "import os, signal, sys; from pathlib import Path; from lad_eval.files.atomic import temporary_path\n"
            "with temporary_path(Path(sys.argv[1]) / 'metrics.json') as path:\n"
            "    path.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
        )
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
        (left,) = tmp_path.iterdir()
        assert sweep(tmp_path) == 0  # so young that it may be another's, made this moment
        old(left)
        others = ["notes.part", ".hidden", ".x.part", "metrics.json", ".metrics.json.ABCDEFGH.part"]
        for name in others:
            (tmp_path / name).write_text("")
            old(tmp_path / name)
        assert sweep(tmp_path) == 1
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(others)

    def test_a_file_that_is_being_written_stays(self, tmp_path):
        with temporary_path(tmp_path / "a.json") as temporary:
            old(temporary)
            assert sweep(tmp_path) == 0
            temporary.write_text("whole")
        assert [p.name for p in tmp_path.iterdir()] == ["a.json"]

    def test_in_a_folder_of_the_users_only_what_was_to_become_the_file_goes(self, tmp_path):
        for name in (".a.html.abcd1234.part", ".b.html.abcd1234.part"):
            (tmp_path / name).write_text("")
            old(tmp_path / name)
        assert sweep(tmp_path, "a.html") == 1
        assert [p.name for p in tmp_path.iterdir()] == [".b.html.abcd1234.part"]

    def test_names_of_earlier_versions_count_links_and_folders_do_not(self, tmp_path):
        names = [".evidence.parquet.new", ".replies.greedy-16.jsonl.new", ".metrics.json.123", ".predictions.parquet.45"]
        for name in names:
            (tmp_path / name).write_text("")
            old(tmp_path / name)
        (tmp_path / "kept").write_text("")
        (tmp_path / ".a.abcd1234.part").symlink_to(tmp_path / "kept")
        (tmp_path / ".b.abcd1234.part").mkdir()
        assert sweep(tmp_path) == len(names)
        assert (tmp_path / "kept").exists()
        assert sweep(tmp_path / "nowhere") == 0

    def test_scratch_folders_of_killed_processes_go_when_the_next_is_made(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        script = (
            "import os, signal, sys, tempfile; tempfile.tempdir = sys.argv[1]; from lad_eval.files.atomic import Scratch\n"
            "made = Scratch('check'); os.kill(os.getpid(), signal.SIGKILL)"
        )
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
        (tmp_path / "lad-eval-mine").mkdir()
        (left,) = tmp_path.glob("lad-eval-check-*")
        old(left / ".alive")
        with Scratch("check") as alive, Scratch("check"):
            old(f"{alive}/.alive")
            with Scratch("other"):
                assert not left.exists()
                assert os.path.isdir(alive)  # noqa: PTH112
        assert [p.name for p in tmp_path.iterdir()] == ["lad-eval-mine"]

    def test_a_write_that_fails_leaves_the_old_file_alone(self, tmp_path):
        path = tmp_path / "a"
        write_atomically(path, lambda temporary: temporary.write_text("old"))

        def fail(temporary):
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            write_atomically(path, fail)
        assert (path.read_text(), len(list(tmp_path.iterdir()))) == ("old", 1)


class TestOddTargets:
    def test_a_link_stays_a_link(self, tmp_path):
        (tmp_path / "real").write_text("old")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        write_atomically(tmp_path / "link", lambda temporary: temporary.write_text("new"))
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "real").read_text() == "new"

    @pytest.mark.skipif(not hasattr(os, "openpty"), reason="has no terminals")
    def test_a_device_is_written_to_and_stays_one(self):
        ours, theirs = os.openpty()
        try:
            device = Path(os.ttyname(theirs))
            write_atomically(device, lambda temporary: temporary.write_text("text"))
            assert device.is_char_device()
            assert os.read(ours, 100) == b"text"
        finally:
            os.close(ours)
            os.close(theirs)


def _flipped(content, bit):
    at = bit // 8
    return content[:at] + bytes([content[at] ^ (1 << bit % 8)]) + content[at + 1 :]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_configuration_of_transformers_may_hold_infinity_and_a_mark_of_its_encoding(tmp_path, mark):
    (tmp_path / "config.json").write_bytes(
        mark + b'{"time_step_limit": [0.0, Infinity], "transformers_weights": "mine.safetensors"}'
    )
    for name in ("mine.safetensors", "model.safetensors"):
        (tmp_path / name).touch()
    assert weight_files(tmp_path) == [tmp_path / "mine.safetensors"]
