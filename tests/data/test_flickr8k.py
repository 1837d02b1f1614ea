"""Flickr8k from its own text files or a table: which caption, which pictures, and what is said of faults."""

import pytest

from lad_eval.data.dataset import PrepareOptions
from lad_eval.data.flickr8k import FLICKR8K, read_flickr8k
from lad_eval.data.prepare import prepare, status, verify
from lad_eval.data.retrieval import dataset as annotations_dataset
from lad_eval.data.retrieval.protocols import Order
from lad_eval.data.retrieval.store import Recipe, read_set
from lad_eval.errors import DataError
from tests.data.coco_files import flickr8k_folder


@pytest.fixture
def root(tmp_path):
    return flickr8k_folder(tmp_path / "flickr8k")


def test_the_first_caption_counts_unless_another_picture_has_it(root):
    index = read_flickr8k(root)
    assert index.captions["0000_f.jpg"] == "A dog runs ."
    assert index.captions["0001_f.jpg"] == "caption 1 of 1"
    assert index.captions["0007_f.jpg"] == "A dog number 7 runs ."
    assert index.categories is None
    assert len(index.test) == 20
    assert len(index.names) == 30


def test_a_picture_whose_captions_are_all_taken_is_left_out(root):
    token = root / "Flickr8k.token.txt"
    lines = [line for line in token.read_text().splitlines() if not line.startswith("0001_f.jpg#") or line[11] == "0"]
    token.write_text("\n".join(lines))
    index = read_flickr8k(root)
    assert "0001_f.jpg" not in index.captions
    assert "0001_f.jpg" not in index.test


@pytest.mark.parametrize("name", ["captions.txt", "captions.csv"])
def test_a_table_will_do(root, name):
    (root / "Flickr8k.token.txt").unlink()
    (root / name).write_text('image,caption\n0003_f.jpg,"Two dogs, one ball"\n0003_f.jpg,Other\n0004_f.jpg,A cat , a mat .\n')
    (root / "Flickr_8k.testImages.txt").unlink()
    index = read_flickr8k(root)
    assert index.captions == {"0003_f.jpg": "Two dogs, one ball", "0004_f.jpg": "A cat , a mat ."}
    assert index.test == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0001_f.jpg A dog\n", "line 1 is not <image>#<number><tab><caption>"),
        ("0001_f.jpg#0\tA dog\n0001_f.jpg#x\tA dog\n", "line 2 is not"),
        ("0001_f.jpg#0\t \n", "line 1 is not"),
        ("", "it holds no caption"),
        ("other.jpg#0\tA dog\n", "none of its pictures has a caption"),
    ],
)
def test_a_damaged_token_file_is_named(root, text, fault):
    (root / "Flickr8k.token.txt").write_text(text)
    with pytest.raises(DataError, match=fault):
        read_flickr8k(root)


def test_a_damaged_table_is_named(root):
    (root / "Flickr8k.token.txt").unlink()
    (root / "captions.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="the first line must be image,caption"):
        read_flickr8k(root)
    (root / "captions.csv").write_text("image,caption\n0001_f.jpg,\n")
    with pytest.raises(DataError, match="line 2 is not image,caption"):
        read_flickr8k(root)


def test_missing_files_are_named(root, tmp_path, progress):
    (root / "Flicker8k_Dataset/0003_f.jpg").unlink()
    with pytest.raises(DataError, match=r"0003_f\.jpg is missing or has no caption, but Flickr_8k\.testImages\.txt lists it"):
        read_flickr8k(root)
    (root / "Flickr8k.token.txt").unlink()
    with pytest.raises(DataError, match=r"Flickr8k\.token\.txt is missing .*captions\.csv with image,caption works too"):
        read_flickr8k(root)
    with pytest.raises(DataError, match=r"Flickr8k_text\.zip is missing"):
        prepare(FLICKR8K, root, PrepareOptions(download=False), progress)
    with pytest.raises(DataError, match="Flicker8k_Dataset is missing"):
        read_flickr8k(tmp_path)


@pytest.mark.parametrize("listed", [True, False])
def test_prepare_draws_test_samples_from_the_listed_pictures(tmp_path, progress, monkeypatch, listed):
    monkeypatch.setattr(annotations_dataset, "SAMPLES", 20)
    root = flickr8k_folder(tmp_path / "flickr8k", listed=listed)
    prepare(FLICKR8K, root, PrepareOptions(download=False, encoder="none"), progress)
    assert status(FLICKR8K, None)[1].ready
    assert verify(FLICKR8K, None, progress) == []
    made = read_set(root, Recipe("strict", Order("random", 4, 20, 5)))
    assert len(made.test) == 20
    assert not {a.target for a in made.test} & {a.target for a in made.calibration}
    if listed:
        assert {a.target for a in made.test} == {f"{n:04}_f.jpg" for n in range(20)}
        assert not {n for a in made.test for n in a.image_ids} & {n for a in made.calibration for n in a.image_ids}
