import hashlib
import json
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import nullcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_eval.data import download as download_module
from lad_eval.data.dataset import DataFile
from lad_eval.data.download import ChecksumError, check, fetch
from lad_eval.errors import DataError
from lad_eval.files.documents import read_json, write_json
from tests.data.server import Site, serving

CONTENT = random.Random(0).randbytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def a_file(url, **known):
    return DataFile("zips/file.bin", url, "the pictures", "CC0", **known)


def test_a_file_is_fetched_with_progress_and_not_again(tmp_path, progress):
    with serving(Site(CONTENT)) as site:
        for _ in range(2):
            path = fetch(a_file(site.url, bytes=len(CONTENT), sha256=SHA256), tmp_path, progress)
    assert path == tmp_path / "zips" / "file.bin"
    assert path.read_bytes() == CONTENT
    assert site.asked == [None]
    assert [(label, total, sum(done), unit) for label, total, done, unit in progress.told] == [
        ("file.bin", len(CONTENT), len(CONTENT), "bytes"),
        ("checking file.bin.part", len(CONTENT), len(CONTENT), "bytes"),
    ]
    assert list(path.parent.iterdir()) == [path]


def test_a_transfer_that_breaks_goes_on_where_it_broke(tmp_path, progress):
    with serving(Site(CONTENT, cut=[1_000_000, 500_000])) as site:
        path = fetch(a_file(site.url, sha256=SHA256), tmp_path, progress)
    assert path.read_bytes() == CONTENT
    assert site.asked == [None, "bytes=1000000-", "bytes=1500000-"]
    assert [head.get("If-Range") for head in site.heads] == [None, '"v1"', '"v1"']


def test_a_server_without_ranges_starts_anew(tmp_path, progress):
    with serving(Site(CONTENT, cut=[1_000_000], ranges=False)) as site:
        path = fetch(a_file(site.url), tmp_path, progress)
    assert path.read_bytes() == CONTENT


def test_what_has_changed_meanwhile_is_not_continued(tmp_path, progress):
    with serving(Site(CONTENT, cut=[1_000_000, 0, 0, 0])) as site, pytest.raises(DataError, match="1000000 bytes are kept"):
        fetch(a_file(site.url), tmp_path, progress)
    with serving(Site(CONTENT[::-1], tag='"v2"')) as site:
        note = tmp_path / "zips" / "file.bin.part.json"
        write_json(note, {**read_json(note), "url": site.url})
        assert fetch(a_file(site.url), tmp_path, progress).read_bytes() == CONTENT[::-1]
    assert site.asked == ["bytes=1000000-"]


def test_a_part_from_another_address_is_not_continued(tmp_path, progress):
    part = tmp_path / "zips" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"something else")
    part.with_name("file.bin.part.json").write_text('{"url": "http://elsewhere/", "tag": "\\"v1\\""}')
    with serving(Site(CONTENT)) as site:
        assert fetch(a_file(site.url), tmp_path, progress).read_bytes() == CONTENT
    assert site.asked == [None]


@pytest.mark.parametrize("note", ["", "[]", '{"url": 3}'])
def test_a_damaged_note_beside_a_part_means_to_start_anew(tmp_path, progress, note):
    part = tmp_path / "zips" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"something else")
    part.with_name("file.bin.part.json").write_text(note)
    with serving(Site(CONTENT)) as site:
        assert fetch(a_file(site.url), tmp_path, progress).read_bytes() == CONTENT


def test_all_of_it_was_there_but_for_the_name(tmp_path, progress):
    part = tmp_path / "zips" / "file.bin.part"
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    with serving(Site(CONTENT)) as site:
        part.with_name("file.bin.part.json").write_text(json.dumps({"url": site.url, "tag": '"v1"'}))
        assert fetch(a_file(site.url), tmp_path, progress).read_bytes() == CONTENT
    assert site.asked == [f"bytes={len(CONTENT)}-"]


def test_a_wrong_checksum_leaves_nothing_behind(tmp_path, progress):
    with serving(Site(CONTENT)) as site, pytest.raises(ChecksumError) as caught:
        fetch(a_file(site.url, sha256="0" * 64), tmp_path, progress)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/zips/file.bin has sha256 {SHA256}, not {'0' * 64}: what came from {site.url} is damaged")
    assert "\n" not in text
    assert not list((tmp_path / "zips").iterdir())


def test_the_checksum_of_a_hub_is_learned_where_it_redirects(tmp_path, progress):
    with serving(Site(CONTENT, linked=SHA256)) as site:
        moved = site.url.replace("file.bin", "moved")
        assert fetch(a_file(moved), tmp_path, progress).read_bytes() == CONTENT
    with serving(Site(CONTENT, linked="0" * 64)) as site:
        moved = a_file(site.url.replace("file.bin", "moved"))
        with pytest.raises(ChecksumError, match=f"not {'0' * 64}"):
            fetch(moved, tmp_path / "other", progress)


def test_a_size_that_is_not_the_published_one_is_told_before_anything_is_fetched(tmp_path, progress):
    with serving(Site(CONTENT)) as site, pytest.raises(DataError, match="has 3000000 bytes, not 5 as published"):
        fetch(a_file(site.url, bytes=5), tmp_path, progress)
    path = tmp_path / "zips" / "file.bin"
    path.write_bytes(b"1234")
    with pytest.raises(DataError, match=r"file\.bin has 4 bytes, not 5: remove it to have it fetched again from http"):
        fetch(a_file(site.url, bytes=5), tmp_path, progress)


def test_a_busy_server_is_asked_again_and_one_that_refuses_is_not(tmp_path, progress):
    with serving(Site(CONTENT, codes=[503, 429])) as site:
        fetch(a_file(site.url), tmp_path, progress)
    assert len(site.asked) == 3
    with serving(Site(CONTENT, codes=[404])) as site, pytest.raises(DataError, match="its server said 404 Not Found") as caught:
        fetch(a_file(site.url), tmp_path / "new", progress)
    assert len(site.asked) == 1
    assert f"get it from {site.url} and put it there" in str(caught.value)


def test_without_a_network_one_line_says_file_address_and_place_at_once(tmp_path, progress, monkeypatch):
    monkeypatch.setattr(download_module, "PATIENCE_SECONDS", (1000.0,))
    file = a_file("http://127.0.0.1:9/file.bin")
    for download in (True, False):
        with pytest.raises(DataError) as caught:
            fetch(file, tmp_path, progress, download=download)
        text = str(caught.value)
        assert text.startswith(f"{tmp_path}/zips/file.bin is missing (the pictures)")
        assert ("could not be fetched (Connection refused)" in text) == download
        assert text.endswith("get it from http://127.0.0.1:9/file.bin and put it there, then run the same command again.")
        assert "\n" not in text
    by_hand = DataFile("a.txt", None, "the list", "CC0", manual="Ask its authors.")
    with pytest.raises(DataError, match=r"a\.txt is missing \(the list\): put it there, .* Ask its authors\."):
        fetch(by_hand, tmp_path, progress)


def test_only_web_addresses_are_fetched(tmp_path, progress):
    (tmp_path / "secret").write_text("x")
    with pytest.raises(DataError, match="only http and https"):
        fetch(a_file((tmp_path / "secret").as_uri()), tmp_path / "root", progress)


def test_a_folder_that_cannot_be_written_is_told(tmp_path, progress):
    (tmp_path / "zips").write_text("a file where a folder should be")
    with serving(Site(CONTENT)) as site, pytest.raises(DataError, match="zips: cannot be written"):
        fetch(a_file(site.url), tmp_path, progress)


def test_a_killed_process_loses_nothing(tmp_path, progress):
    half = len(CONTENT) // 2
    program = textwrap.dedent(f"""
        import contextlib, pathlib
        from lad_eval.data.dataset import DataFile
        from lad_eval.data.download import fetch
        @contextlib.contextmanager
        def quiet(*a, **k):
            yield lambda count: None
        fetch(DataFile("zips/file.bin", "URL", "x", "y"), pathlib.Path({str(tmp_path)!r}), quiet)
    """)
    # The first answer stops half way and stays open: only a kill ends it.
    with serving(Site(CONTENT, cut=[half], hold=threading.Event())) as site:
        child = subprocess.Popen([sys.executable, "-c", program.replace("URL", site.url)])
        part = tmp_path / "zips" / "file.bin.part"
        until(lambda: part.is_file() and part.stat().st_size > 0)
        child.send_signal(signal.SIGKILL)
        child.wait()
        site.hold.set()
        assert not (tmp_path / "zips" / "file.bin").exists()
        kept = part.stat().st_size
        path = fetch(DataFile("zips/file.bin", site.url, "x", "y"), tmp_path, progress)
    assert path.read_bytes() == CONTENT
    assert site.asked[-1] == f"bytes={kept}-"


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_check_knows_sizes_and_both_kinds_of_checksums(tmp_path, progress):
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    md5 = "900150983cd24fb0d6963f7d28e17f72"
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert check(path, DataFile("f", None, "", "", 3, sha256=sha.upper()), progress) is None
    assert check(path, DataFile("f", None, "", "", md5=md5), progress) is None
    assert check(path, DataFile("f", None, "", ""), progress) is None
    assert check(path, DataFile("f", None, "", "", 4), progress) == f"{path} has 3 bytes, not 4"
    assert check(path, DataFile("f", None, "", "", md5="0"), progress) == f"{path} has md5 {md5}, not 0"


def test_a_transfer_behind_a_redirect_goes_on_too(tmp_path, progress):
    with serving(Site(CONTENT, linked=SHA256, cut=[1_000_000])) as site:
        moved = a_file(site.url.replace("file.bin", "moved"))
        assert fetch(moved, tmp_path, progress).read_bytes() == CONTENT
    assert site.asked == [None, None, "bytes=1000000-", "bytes=1000000-"]


@settings(max_examples=20)
@given(st.lists(st.integers(1, 2000), max_size=6), st.booleans())
def test_whatever_breaks_the_file_is_whole_or_absent(tmp_path_factory, cuts, ranges):
    root = tmp_path_factory.mktemp("root")
    content = CONTENT[:5000]
    with serving(Site(content, cut=list(cuts), ranges=ranges)) as site:
        try:
            fetch(a_file(site.url), root, lambda *a, **k: nullcontext(lambda count: None))
        except DataError:
            assert not (root / "zips" / "file.bin").exists()
        else:
            assert (root / "zips" / "file.bin").read_bytes() == content
            assert [p.name for p in (root / "zips").iterdir()] == ["file.bin"]
