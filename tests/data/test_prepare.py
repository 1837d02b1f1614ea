import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lad_eval.cli.main import invoke
from lad_eval.data.dataset import DATASETS, DataFile, DataSet, PrepareOptions, Status, load_dataset, root_of
from lad_eval.data.prepare import LOCK, prepare, status, verify
from lad_eval.errors import DataError
from tests.data.mmiu_files import write_all
from tests.data.server import Site, serving


@dataclass(frozen=True)
class Toy(DataSet):
    seen: list[tuple[Path, PrepareOptions]] = field(default_factory=list)

    def prepare(self, root, options, progress):
        self.seen.append((root, options))
        if not (root / "words.txt").is_file():
            raise DataError("words.txt is missing")

    def verify(self, root, progress):
        return [] if (root / "words.txt").read_text() == "words" else ["words.txt: other words"]

    def status(self, root):
        return Status((root / "words.txt").is_file(), ("words.txt: there",))


@pytest.fixture
def toy():
    file = DataFile("words.txt", None, "the words", "CC0")
    return Toy("toy", "Toy", "https://example.org", "CC0", (file,), takes=frozenset({"device"}))


def test_a_root_is_prepared_remembered_and_used_without_being_named(toy, tmp_path, progress, monkeypatch):
    root = tmp_path / "data"
    root.mkdir()
    (root / "words.txt").write_text("words")
    monkeypatch.chdir(tmp_path)
    assert status(toy, None) == (None, Status(False, ()))
    assert prepare(toy, Path("data"), PrepareOptions(), progress) == root == root_of("toy")
    assert prepare(toy, None, PrepareOptions(device="cpu"), progress) == root
    assert [where for where, _ in toy.seen] == [root, root]
    assert status(toy, None) == (root, Status(True, ("words.txt: there",)))
    assert verify(toy, None, progress) == []
    (root / "words.txt").write_text("others")
    assert verify(toy, root, progress) == ["words.txt: other words"]


def test_what_fails_is_not_remembered(toy, home, tmp_path, progress):
    with pytest.raises(DataError, match=r"words\.txt is missing"):
        prepare(toy, None, PrepareOptions(), progress)
    assert toy.seen[0][0] == home / "toy"
    with pytest.raises(DataError, match="'toy' is not prepared"):
        verify(toy, None, progress)
    with pytest.raises(DataError, match="none: no such folder"):
        verify(toy, tmp_path / "none", progress)
    with pytest.raises(DataError, match="none: no such folder, and nothing is downloaded into a new one"):
        prepare(toy, tmp_path / "none", PrepareOptions(download=False), progress)


def test_options_of_another_data_set_are_refused(toy, tmp_path, progress):
    with pytest.raises(DataError, match="--encoder, --batch-size: not an option of toy"):
        prepare(toy, tmp_path, PrepareOptions(encoder="x", batch_size=3, device="cpu"), progress)
    assert toy.seen == []


def test_two_at_once_on_one_folder_are_told_apart(toy, tmp_path, progress):
    (tmp_path / "words.txt").write_text("words")
    lock = str(tmp_path / LOCK)
    child = subprocess.Popen(
        [sys.executable, "-c", f"import filelock, time\nwith filelock.FileLock({lock!r}): print(1, flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout.readline() == b"1\n"
        with pytest.raises(DataError, match="is being prepared by another process"):
            prepare(toy, tmp_path, PrepareOptions(), progress)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert prepare(toy, tmp_path, PrepareOptions(), progress) == tmp_path


def test_every_registered_data_set_describes_itself():
    for name in DATASETS:
        dataset = load_dataset(name)
        assert dataset.name == name
        assert all((dataset.title, dataset.licence, dataset.homepage.startswith("http")))
        assert len({file.path for file in dataset.files}) == len(dataset.files) > 0
        for file in dataset.files:
            assert all((file.purpose, file.licence, not Path(file.path).is_absolute()))
            assert file.url is None or file.url.startswith("http")
            assert file.url or file.manual, f"{name}: how does one get {file.path}?"
        assert dataset.takes <= set(PrepareOptions.__dataclass_fields__)
    with pytest.raises(DataError, match="Unknown data set 'cocoa'; there are coco, flickr8k, mmiu, blink, muirbench"):
        load_dataset("cocoa")


def call(capsys, *words):
    code = invoke(list(map(str, words)))
    told = capsys.readouterr()
    return code, told.out, told.err


def test_the_commands_from_nothing_to_a_prepared_data_set(capsys, tmp_path):
    code, out, err = call(capsys, "data", "status", "mmiu")
    assert (code, err) == (0, "")
    assert out.startswith("mmiu: not prepared; run `lad-eval data prepare mmiu --root <folder>`.\n  all.parquet: questions")
    root = write_all(tmp_path / "copy")
    code, out, err = call(capsys, "data", "prepare", "mmiu", "--root", root, "--no-download")
    assert code == 0
    assert out.startswith(f"mmiu: ready, in {root}\n  all.parquet: there\n")
    assert "  text2image_retrieval: 12 rows, all images there\n" in out
    assert "Low-level-semantic.zip: 120 pictures unpacked." in err
    assert call(capsys, "data", "status", "mmiu")[1] == out
    code, out, err = call(capsys, "data", "verify", "mmiu", "--quiet")
    assert (code, out) == (1, f"{root}/all.parquet: 72 rows, not 11698 as published.\n")
    assert err == "mmiu: 1 fault.\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["prepare", "cocoa"], "Unknown data set 'cocoa'; there are coco, flickr8k, mmiu, blink, muirbench."),
        (["prepare", "mmiu", "--encoder", "x"], "--encoder: not an option of mmiu"),
        (["prepare", "mmiu", "--no-download"], "all.parquet is missing"),
        (["verify", "mmiu"], "The data set 'mmiu' is not prepared; run `lad-eval data prepare mmiu --root <folder>`."),
        (["verify"], "Missing argument 'NAME'"),
        (["status", "--root", "/"], "--root is one data set's folder; name the data set."),
        (["prepare", "mmiu", "--batch-size", "0"], "--batch-size"),
    ],
)
def test_a_fault_of_the_users_is_one_line_and_exit_code_2(capsys, words, says):
    code, out, err = call(capsys, "data", *words)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_one_data_set_at_fault_does_not_hide_the_others(capsys, home):
    home.mkdir()
    (home / "coco.json").write_text('{"root": "/gone"}')
    (home / "flickr8k.json").write_text("{")
    code, out, _ = call(capsys, "data", "status")
    assert code == 0
    heads = [line for line in out.splitlines() if not line.startswith(" ")]
    assert heads[0].startswith("coco: The data set 'coco' was prepared in /gone, which is gone; run `lad-eval data prepare coco")
    assert "flickr8k.json (where flickr8k lies): it is not JSON, so it is damaged. Remove it" in heads[1]
    assert heads[2].startswith("mmiu: not prepared")
    assert call(capsys, "data", "status", "coco")[0] == 2


def test_help_comes_at_once():
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lad_eval", "data", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "prepare" in done.stdout
    assert time.monotonic() - started < 5
    for heavy in ("torch", "datasets", "transformers", "pandas"):
        assert f" {heavy}\n" not in done.stderr


def test_ctrl_c_says_that_the_same_command_goes_on(tmp_path, home):
    site = Site(b"x" * 3_000_000, cut=[1_500_000], hold=threading.Event())
    with serving(site):
        endpoint = site.url.removesuffix("/file.bin")
        child = subprocess.Popen(
            [sys.executable, "-m", "lad_eval", "data", "prepare", "mmiu", "--root", str(tmp_path / "mmiu")],
            env={**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "LAD_EVAL_DATA": str(home)},
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )
        part = tmp_path / "mmiu" / "all.parquet.part"
        end = time.monotonic() + 30
        while not (part.is_file() and part.stat().st_size) and time.monotonic() < end:
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
        site.hold.set()
    assert child.returncode == 130
    assert err == "Interrupted: finished downloads and steps are kept; the same command resumes from there.\n"
    assert part.stat().st_size > 0
