"""The released code's annotation files are read and written as they are."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_eval.data.retrieval.annotations import Annotation, dumps, read_annotations, sample_ids, write_annotations
from lad_eval.errors import DataError

GOOD = {"id": 0, "image_ids": ["d/a.jpg", "d/b.jpg"], "index": 1, "target": "b.jpg", "caption": "a dog"}
names = st.lists(st.text("abcé ", min_size=1, max_size=3).map(lambda t: f"{t}.jpg"), min_size=3, max_size=3, unique=True)


@given(st.lists(names, min_size=1, max_size=4), st.integers(0, 2))
def test_the_text_is_what_json_writes_for_the_released_code(rows, index):
    entries = [
        {"id": i, "image_ids": [f"data/val2014/{n}" for n in row], "index": index, "target": row[index], "caption": "über"}
        for i, row in enumerate(rows)
    ]
    made = [Annotation(e["id"], tuple(e["image_ids"]), e["index"], e["target"], e["caption"]) for e in entries]
    assert dumps(made) == json.dumps(entries, indent=2)


def test_what_is_written_is_read_again(tmp_path):
    made = [Annotation(7, ("x/a.jpg", "x/b.jpg"), 0, "a.jpg", " as it is ")]
    write_annotations(tmp_path / "a.json", made)
    assert read_annotations(tmp_path / "a.json") == made
    assert not list(tmp_path.glob(".*"))


def test_renaming_goes_through_to_the_target():
    one = Annotation(0, (r"C:\data\a.jpg", "/data/b.jpg"), 0, "a.jpg", "c")
    renamed = one.renamed({r"C:\data\a.jpg": "x/a.jpg", "/data/b.jpg": "x/b.jpg"})
    assert renamed == Annotation(0, ("x/a.jpg", "x/b.jpg"), 0, "x/a.jpg", "c")


@pytest.mark.parametrize("target", ["b.jpg", "c1/b.jpg"])
def test_pictures_of_one_name_in_two_folders_are_two(tmp_path, target):
    entry = {**GOOD, "image_ids": ["c0/b.jpg", "c1/b.jpg"], "target": target}
    (tmp_path / "a.json").write_text(json.dumps([entry]))
    assert read_annotations(tmp_path / "a.json")[0].image_ids == ("c0/b.jpg", "c1/b.jpg")


def test_a_picture_that_is_asked_about_again_gets_a_number():
    entries = [Annotation(i, ("a", "b"), index, "ab"[index], "c") for i, index in enumerate((0, 1, 0, 0))]
    assert list(sample_ids(entries)) == ["a", "b", "a#2", "a#3"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id": "0"}, "entry 0: id must be a whole number, not '0'"),
        ({"id": True}, "id must be a whole number"),
        ({"image_ids": ["d/b.jpg"]}, "image_ids must be a list of two paths or more"),
        ({"image_ids": "ab"}, "image_ids must be a list"),
        ({"image_ids": ["d/b.jpg", "./d/b.jpg"]}, "image_ids names a picture twice"),
        ({"image_ids": ["d/b.jpg", r"d\b.jpg"]}, "image_ids names a picture twice"),
        ({"image_ids": ["a.jpg", ".."]}, "image_ids must be a list of two paths or more"),
        ({"target": "c/b.jpg"}, "target is 'c/b.jpg', but image_ids[1] is 'b.jpg'"),
        ({"target": 3}, "target is 3, but"),
        ({"index": 2}, "index must be one of 0..1, not 2"),
        ({"index": None}, "index must be one of 0..1"),
        ({"target": "a.jpg"}, "target is 'a.jpg', but image_ids[1] is 'b.jpg'"),
        ({"caption": " "}, "there is no caption"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, change, fault):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{**GOOD, **change}]))
    with pytest.raises(DataError) as caught:
        read_annotations(path)
    assert fault in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[", "not JSON"),
        ("{}", "must be a list of samples"),
        ("[]", "must be a list of samples"),
        ("[1]", "entry 0: must be an object"),
        ('[{"id": 0, "index": 0}]', "entry 0: lacks image_ids, target, caption"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, fault):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=fault.replace("[", r"\[")):
        read_annotations(path)
    with pytest.raises(DataError, match="no such annotation file"):
        read_annotations(tmp_path / "none.json")


def test_samples_of_different_sizes_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([GOOD, {**GOOD, "image_ids": ["a.jpg", "b.jpg", "c.jpg"]}]))
    with pytest.raises(DataError, match="samples have 2, 3 images"):
        read_annotations(path)
