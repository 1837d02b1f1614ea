import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import time
import zipfile
import zlib
from contextlib import nullcontext, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_eval.data import archives
from lad_eval.data.archives import differences, top_folders, unpack
from lad_eval.errors import DataError

FILES = {f"task/task_{i}_{j}.jpg": random.Random(f"{i}{j}").randbytes(1000 + i) for i in range(3) for j in range(2)}


@pytest.fixture
def make(tmp_path):
    """Writes a zip of {name or ZipInfo: content}."""

    def made(files, name="pictures.zip", mode="w"):
        path = tmp_path / name
        with zipfile.ZipFile(path, mode, zipfile.ZIP_DEFLATED) as out:
            for member, content in files.items():
                out.writestr(member, content)
        return path

    return made


def content_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_everything_is_unpacked_once(make, tmp_path, progress):
    archive, into = make(FILES), tmp_path / "into"
    assert unpack(archive, into, progress) == 6
    assert content_of(into) == FILES
    assert top_folders(archive) == {"task"}
    before = {p: p.stat().st_mtime_ns for p in into.rglob("*")}
    assert unpack(archive, into, progress) == 0
    assert {p: p.stat().st_mtime_ns for p in into.rglob("*")} == before
    total = sum(map(len, FILES.values()))
    assert [(t, done[0], sum(done), unit) for _, t, done, unit in progress.told] == [
        (total, 0, total, "bytes"),
        (total, total, total, "bytes"),
    ]


def test_what_is_missing_or_cut_off_is_unpacked_and_the_rest_left(make, tmp_path, progress):
    archive, into = make(FILES), tmp_path / "into"
    unpack(archive, into, progress)
    (into / "task" / "task_0_0.jpg").unlink()
    (into / "task" / "task_1_0.jpg").write_bytes(b"short")
    assert unpack(archive, into, progress) == 2
    assert content_of(into) == FILES


def test_differences_are_found_by_content(make, tmp_path, progress):
    archive, into = make(FILES), tmp_path / "into"
    unpack(archive, into, progress)
    assert differences(archive, into, progress) == []
    flipped = into / "task" / "task_2_1.jpg"
    flipped.write_bytes(flipped.read_bytes()[::-1])
    (into / "task" / "task_0_0.jpg").unlink()
    assert differences(archive, into, progress) == [
        f"{into}/task/task_0_0.jpg: missing, though pictures.zip holds it",
        f"{into}/task/task_2_1.jpg: differs from what pictures.zip holds; remove it and prepare again",
    ]


def link(name, target="/etc/passwd"):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, target


UNSAFE = {
    "/etc/evil": "names an absolute place",
    "C:/evil": "names an absolute place",
    "c:evil": "names an absolute place",
    "../evil": "leads out of the folder",
    "task/../../evil": "leads out of the folder",
    "task\\..\\..\\evil": "has a backslash or a zero byte in its name",
    "a\0b.jpg": "has a backslash or a zero byte in its name",
    ".": "names no file",
    "//server/share/evil": "names an absolute place",
}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_name_is_refused_before_anything_is_written(make, tmp_path, progress, name):
    # ZipInfo cuts names at zero bytes; the file keeps what is put there by hand.
    archive = make({"task/good.jpg": b"good", name.replace("\0", "Z"): b"evil"})
    archive.write_bytes(archive.read_bytes().replace(b"aZb.jpg", b"a\0b.jpg"))
    into = tmp_path / "deep" / "into"
    for look in (unpack, differences):
        with pytest.raises(DataError) as caught:
            look(archive, into, progress)
        refused = f"{archive} is refused and nothing was unpacked: its member {name!r} {UNSAFE[name]}."
        assert str(caught.value) == refused
    assert not into.exists()
    assert not list(tmp_path.rglob("*evil*"))


@given(
    st.lists(st.sampled_from(["..", ".", "", "a", "b c", "é", "C:", "x\\y", "-rf"]), min_size=1, max_size=4)
    .map("/".join)
    .filter(bool)
)
def test_no_name_leads_out_of_the_folder(tmp_path_factory, name):
    base = tmp_path_factory.mktemp("zip")
    (base / "keep").mkdir()
    with zipfile.ZipFile(base / "a.zip", "w") as out:
        out.writestr(name, b"x")
    with suppress(DataError):
        unpack(base / "a.zip", base / "keep" / "into", lambda *a, **k: nullcontext(lambda count: None))
    outside = [p for p in base.rglob("*") if p.is_file() and (base / "keep" / "into") not in p.parents]
    assert outside == [base / "a.zip"]


def test_links_encrypted_and_repeated_members_are_refused(make, tmp_path, progress):
    info, target = link("task/link.jpg")
    with pytest.raises(DataError, match=r"'task/link\.jpg' is a link or another special file\."):
        unpack(make({info: target}), tmp_path / "into", progress)
    twice = make({"task/b.jpg": b"1"})
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(twice, "a") as out:
        out.writestr("task/b.jpg", b"2")
    with pytest.raises(DataError, match=r"'task/b\.jpg' is there twice\."):
        unpack(twice, tmp_path / "into", progress)
    both = make({"task/c": b"1", "task/c/d.jpg": b"2"}, "both.zip")
    with pytest.raises(DataError, match="'task/c' is a file and a folder in it"):
        unpack(both, tmp_path / "into", progress)
    locked = make({"task/e.jpg": b"1"}, "locked.zip")
    raw = bytearray(locked.read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1
    locked.write_bytes(raw)
    with pytest.raises(DataError, match=r"'task/e\.jpg' is encrypted\."):
        unpack(locked, tmp_path / "into", progress)
    assert not (tmp_path / "into").exists()


def test_a_bomb_is_refused_by_its_size_and_so_is_one_that_lies_about_it(make, tmp_path, progress, monkeypatch):
    monkeypatch.setattr(archives, "SMALL_BYTES", 1 << 20)
    bomb = make({"task/zeros.jpg": bytes(8 << 20)})
    with pytest.raises(DataError, match=r"its \d+ bytes unpack to 8388608, which no data set does"):
        unpack(bomb, tmp_path / "into", progress)
    raw = bytearray(bomb.read_bytes())
    for signature, at in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        place = raw.index(signature) + at
        raw[place : place + 4] = (1000).to_bytes(4, "little")
    bomb.write_bytes(raw)
    with pytest.raises(DataError, match=r"is damaged at 'task/zeros\.jpg'"):
        unpack(bomb, tmp_path / "into", progress)
    assert not [p for p in (tmp_path / "into").rglob("*") if p.is_file()]
    monkeypatch.setattr(archives, "MOST_MEMBERS", 5)
    with pytest.raises(DataError, match="has 6 members, and no more than 5 are unpacked"):
        unpack(make(FILES, "many.zip"), tmp_path / "into", progress)


def test_too_little_room_is_told_before_anything_is_written(make, tmp_path, progress, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"pictures\.zip needs 0\.0 GB in .*into, and 0\.0 GB are free"):
        unpack(make(FILES), tmp_path / "into", progress)
    assert not list((tmp_path / "into").iterdir())


def test_damage_is_told_in_one_line_and_leaves_no_half_file(make, tmp_path, progress):
    archive = make(FILES)
    whole = archive.read_bytes()
    cut = tmp_path / "cut.zip"
    for content in (whole[: len(whole) // 2], b"", b"<html>not found</html>"):
        cut.write_bytes(content)
        with pytest.raises(DataError, match=r"cut\.zip is not a zip archive or is damaged \(File is not a zip file\); remove it"):
            unpack(cut, tmp_path / "into", progress)
    flipped = bytearray(whole)
    flipped[200] ^= 0xFF
    cut.write_bytes(flipped)
    with pytest.raises(DataError) as caught:
        unpack(cut, tmp_path / "into", progress)
    assert str(caught.value).startswith(f"{cut} is damaged at 'task/task_0_0.jpg' (")
    assert "\n" not in str(caught.value)
    assert not [p for p in (tmp_path / "into").rglob("*") if p.is_file()]
    with pytest.raises(DataError, match=r"none\.zip: no such file"):
        unpack(tmp_path / "none.zip", tmp_path / "into", progress)


def test_a_killed_process_leaves_whole_files_only(tmp_path, progress):
    files = {f"task/{i:03}.bin": random.Random(i).randbytes(200_000) for i in range(150)}
    archive, into = tmp_path / "big.zip", tmp_path / "into"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(name, content)
    program = textwrap.dedent(f"""
        import contextlib, pathlib
        from lad_eval.data.archives import unpack
        @contextlib.contextmanager
        def quiet(*a, **k):
            yield lambda count: None
        unpack(pathlib.Path({str(archive)!r}), pathlib.Path({str(into)!r}), quiet)
    """)
    child = subprocess.Popen([sys.executable, "-c", program])
    while child.poll() is None and sum(1 for _ in into.rglob("*.bin")) < 10:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    there = list(into.rglob("*.bin"))
    assert all(zlib.crc32(p.read_bytes()) == zlib.crc32(files[f"task/{p.name}"]) for p in there)
    assert unpack(archive, into, progress) == 150 - len(there)
    assert differences(archive, into, progress) == []


def test_files_are_as_readable_as_the_umask_says(make, tmp_path, progress):
    before = os.umask(0o027)
    try:
        unpack(make(FILES), tmp_path / "into", progress)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "into").rglob("*.jpg")} == {0o640}
