"""Picture files: what identifies each, and every kind of fault in one line."""

import contextlib
import hashlib
import io
import os

import pytest
from PIL import Image, ImageFile

from lad_eval.data.decoding import decode
from lad_eval.data.pictures import picture_facts, picture_faults, pixel_treatments, read_picture, treatment_line
from lad_eval.errors import DataError, PictureError
from tests.data.picture_files import EPS, LFS_POINTER, png


def test_a_picture_is_read_upright_and_in_rgb(tmp_path):
    path = tmp_path / "a.jpg"
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("L", (6, 4), 200).save(path, exif=turned)
    assert (read_picture(path).size, read_picture(path).mode) == ((4, 6), "RGB")
    assert picture_faults(path) == []


def _jpeg():
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "JPEG")
    return buffer.getvalue()


def _damaged_avif():
    """Of a kind over which Pillow raises RuntimeError."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 12)).save(buffer, "AVIF")
    return buffer.getvalue().replace(b"iloc", b"xxxx")


@pytest.mark.parametrize(
    "content",
    [b"<html>not found</html>", _jpeg()[:200], _jpeg()[:-900], b"GIF89a", b"\x89PNG\r\n\x1a\n", png(0, 5, 8, 0, [])],
)
def test_damaged_files_are_told(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert picture_faults(path) == [f"{path}: cannot be read: it is damaged or no image."]
    assert picture_faults(path, "a.jpg") == ["a.jpg: cannot be read: it is damaged or no image."]


def test_a_fault_of_any_class_that_pillow_raises_is_told(tmp_path):
    Image.init()
    if "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow is built without AVIF")
    path = tmp_path / "a.avif"
    path.write_bytes(_damaged_avif())
    with pytest.raises(RuntimeError):
        decode(path.read_bytes())
    assert picture_faults(path) == [f"{path}: cannot be read: it is damaged or no image."]
    with pytest.raises(PictureError, match="it is damaged or no image"):
        picture_facts(path)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    with pytest.raises(DataError, match=r"none\.jpg: no such image\."):
        read_picture(tmp_path / "none.jpg")
    assert picture_faults(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory."]


def test_a_picture_made_to_fill_memory_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = tmp_path / "a.png"
    Image.new("L", (40, 40)).save(path)
    assert picture_faults(path) == [f"{path}: it has more than 89,478,485 pixels, which could fill the memory; make it smaller."]


def test_a_git_lfs_pointer_and_an_empty_file_are_told(tmp_path):
    (tmp_path / "a.png").write_bytes(LFS_POINTER)
    (tmp_path / "b.png").write_bytes(b"")
    assert picture_faults(tmp_path / "a.png", "a.png") == [
        "a.png is a Git LFS pointer, not the picture itself; run `git lfs pull`."
    ]
    assert picture_faults(tmp_path / "b.png", "b.png") == ["b.png: the file is empty."]


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A program `gs` that leaves a file behind when it is started; gives that file's path."""
    started = tmp_path / "started"
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("gs", "gswin64c", "gswin32c"):
        (folder / name).write_text(f"#!/bin/sh\necho 10.0\necho started >> '{started}'\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None, raising=False)
    return started


def test_a_postscript_file_is_refused_and_starts_no_program(tmp_path, ghostscript):
    path = tmp_path / "0.png"
    path.write_bytes(EPS)
    for read in (read_picture, picture_facts, pixel_treatments):
        with pytest.raises(PictureError, match=r"0\.png is PostScript \(EPS\), not a raster picture; save it as PNG or JPEG\."):
            read(path)
    assert not ghostscript.exists()
    # The program is one that Pillow would start, if it were asked to open whatever it can.
    with contextlib.suppress(OSError), Image.open(path) as image:
        image.load()
    assert ghostscript.exists()


@pytest.mark.parametrize(
    ("mode", "form"), [("RGB", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("1", "PNG")]
)
def test_an_ordinary_picture_goes_by_its_bytes(tmp_path, mode, form):
    path = tmp_path / "a"
    Image.new(mode, (6, 4)).save(path, form)
    assert picture_facts(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert picture_facts(path).header.size == (6, 4)


def test_what_decoding_does_belongs_to_a_pictures_identity(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGBA", (6, 4)).save(path)
    flattened = hashlib.sha256(path.read_bytes() + b"\0decoded: flattened").hexdigest()
    assert picture_facts(path).digest == flattened
    assert pixel_treatments(path) == ("flattened",)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGBA", (6, 4)).save(path, exif=turned)
    assert picture_facts(path).header.treatments == ("turned", "flattened")
    assert pixel_treatments(path) == ("flattened",)


def test_treatments_are_counted_by_kind():
    assert treatment_line([]) == ""
    assert treatment_line(["turned", "flattened", "flattened", "first frame", "scaled", "flattened"]) == (
        "1 picture was turned as its EXIF orientation says, 3 pictures were flattened on white, 1 picture was scaled to 8 bits, "
        "1 picture has several frames and shows its first."
    )


def test_a_truncated_picture_is_told_where_another_package_lets_pillow_fill_it_up(tmp_path, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = tmp_path / "a.jpg"
    path.write_bytes(_jpeg()[:-900])
    assert picture_faults(path) == [f"{path}: cannot be read: it is damaged or no image."]
