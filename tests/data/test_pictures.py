"""Picture files: read upright and in RGB, and every kind of fault in one line."""

import io

import pytest
from PIL import Image

from lad_eval.data.pictures import picture_faults, read_picture
from lad_eval.errors import DataError


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


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", _jpeg()[:200], _jpeg()[:-900], b"GIF89a", b"\x89PNG\r\n\x1a\n"]
)
def test_damaged_files_are_told(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    assert picture_faults(path) == [f"{path}: cannot be read: it is damaged or no image."]
    assert picture_faults(path, "a.jpg") == ["a.jpg: cannot be read: it is damaged or no image."]


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    with pytest.raises(DataError, match=r"none\.jpg: no such image\."):
        read_picture(tmp_path / "none.jpg")
    assert picture_faults(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory."]


def test_a_picture_made_to_fill_memory_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = tmp_path / "a.png"
    Image.new("L", (40, 40)).save(path)
    assert picture_faults(path) == [f"{path}: cannot be read: it is damaged or no image."]
