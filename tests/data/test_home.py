from pathlib import Path

import pytest

from lad_eval.data.dataset import default_root, remember, remembered, root_of
from lad_eval.data.dataset import home as where
from lad_eval.errors import DataError, NotPreparedError
from lad_eval.files.documents import read_json


def test_the_folder_that_remembers(monkeypatch, tmp_path):
    monkeypatch.setenv("LAD_EVAL_DATA", str(tmp_path / "mine"))
    assert where() == tmp_path / "mine"
    assert default_root("coco") == tmp_path / "mine" / "coco"
    monkeypatch.setenv("LAD_EVAL_DATA", "~/data")
    assert where() == Path.home() / "data"
    monkeypatch.setenv("LAD_EVAL_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert where() == tmp_path / "cache" / "lad_eval"
    for invalid in ("", "relative/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", invalid)
        assert where() == Path.home() / ".cache" / "lad_eval"


def test_a_root_is_remembered_and_written_anew(home, tmp_path, monkeypatch):
    assert remembered("coco") is None
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    remember("coco", tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    remember("coco", Path("b"))
    assert root_of("coco") == remembered("coco") == tmp_path / "b"
    assert read_json(home / "coco.json") == {"format": 1, "name": "coco", "root": str(tmp_path / "b")}
    assert [p.name for p in home.iterdir()] == ["coco.json"]


def test_what_is_not_prepared_is_told_with_the_command_to_run(tmp_path):
    with pytest.raises(NotPreparedError) as caught:
        root_of("flickr8k")
    run = "run `lad-eval data prepare flickr8k --root <folder>`."
    assert str(caught.value) == f"The data set 'flickr8k' is not prepared; {run}"
    remember("flickr8k", tmp_path / "gone")
    with pytest.raises(NotPreparedError) as caught:
        root_of("flickr8k")
    assert str(caught.value) == f"The data set 'flickr8k' was prepared in {tmp_path / 'gone'}, which is gone; {run}"


@pytest.mark.parametrize("note", ["", "{", "[]", '{"name": "coco"}', "3"])
def test_a_damaged_note_is_told(home, note):
    home.mkdir()
    (home / "coco.json").write_text(note)
    with pytest.raises(
        DataError,
        match=r"coco\.json.* damaged.*emove it, then run `lad-eval data prepare coco|is not a JSON object. Remove it, then run",
    ):
        root_of("coco")


def test_a_place_that_cannot_be_written_is_told(home, tmp_path):
    home.write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"coco\.json: cannot be .*; set LAD_EVAL_DATA to a folder that can"):
        remember("coco", tmp_path)
