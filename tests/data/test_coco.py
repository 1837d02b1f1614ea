"""COCO from its own files: index, samples, and what is said when something is missing or damaged."""

import json
import logging
import zipfile

import pytest

from lad_eval.data.coco import CAPTIONS, COCO, INSTANCES, read_coco
from lad_eval.data.dataset import PrepareOptions, root_of
from lad_eval.data.prepare import prepare, status, verify
from lad_eval.data.retrieval import dataset as annotations_dataset
from lad_eval.data.retrieval.protocols import Order
from lad_eval.data.retrieval.store import NoEmbeddingsError, Recipe, annotations_folder, make_set, read_set
from lad_eval.errors import DataError
from tests.data.coco_files import coco_caption, coco_folder, coco_name, tiny_clip


@pytest.fixture
def root(tmp_path):
    return coco_folder(tmp_path / "coco")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(tiny_clip(tmp_path_factory.mktemp("encoders") / "tiny-clip"))


@pytest.fixture
def twenty(monkeypatch):
    """The bundled tasks with 20 samples instead of 1,000."""
    monkeypatch.setattr(annotations_dataset, "SAMPLES", 20)


def change(path, edit):
    told = json.loads(path.read_text())
    edit(told)
    path.write_text(json.dumps(told))


def test_the_index_has_the_caption_of_the_lowest_id_and_the_categories(tmp_path):
    index = read_coco(coco_folder(tmp_path, 9, without_categories={4}))
    assert index.captions[coco_name(3)] == coco_caption(3)
    assert index.categories[coco_name(3)] == {4, 81}
    assert coco_name(4) not in index.categories
    assert index.names == [coco_name(n) for n in range(9) if n != 4]
    assert index.absent == 0


def test_pictures_that_are_not_there_are_counted_and_left_out(root):
    (root / "val2014" / coco_name(7)).unlink()
    index = read_coco(root)
    assert (index.absent, coco_name(7) in index.captions) == (1, False)


@pytest.mark.parametrize(
    ("file", "edit", "fault"),
    [
        (CAPTIONS, lambda t: t.pop("images"), "must have the lists images, annotations"),
        (CAPTIONS, lambda t: t["annotations"][3].pop("caption"), "entry 3 lacks image_id or id or caption"),
        (CAPTIONS, lambda t: t["annotations"][3].update(caption=5), "entry 3 has a wrong image_id or id or caption"),
        (CAPTIONS, lambda t: t["images"].pop(2), "caption 2 belongs to image 2, which it does not list"),
        (INSTANCES, lambda t: t["annotations"].insert(0, "x"), "entry 0 lacks image_id or category_id"),
    ],
)
def test_a_damaged_file_is_named(root, file, edit, fault):
    change(root / file, edit)
    with pytest.raises(DataError) as caught:
        read_coco(root)
    assert fault in str(caught.value)
    assert str(root / file) in str(caught.value)


@pytest.mark.parametrize("file", [CAPTIONS, INSTANCES])
def test_a_truncated_file_is_named(root, file):
    (root / file).write_bytes((root / file).read_bytes()[:100])
    with pytest.raises(DataError, match=r"is not JSON, so it is damaged\. Get it again"):
        read_coco(root)


def test_prepare_names_what_is_missing_and_where_to_get_it(root, tmp_path, progress):
    (root / INSTANCES).unlink()
    offline = PrepareOptions(download=False)
    with pytest.raises(DataError) as caught:
        prepare(COCO, root, offline, progress)
    told = str(caught.value)
    assert "annotations_trainval2014.zip is missing" in told
    assert INSTANCES in told
    assert "http://images.cocodataset.org/annotations/annotations_trainval2014.zip" in told
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"val2014\.zip is missing \(the pictures\).*cocodataset\.org/zips/val2014\.zip"):
        prepare(COCO, tmp_path / "empty", offline, progress)


def test_prepare_unpacks_what_lies_there(root, tmp_path, progress):
    with zipfile.ZipFile(root / "val2014.zip", "w") as packed:
        for path in (root / "val2014").iterdir():
            packed.write(path, f"val2014/{path.name}")
            path.unlink()
    # The checksum is that of the real archive: only what is fetched is held against it.
    prepare(COCO, root, PrepareOptions(download=False, encoder="none"), progress)
    assert len(list((root / "val2014").iterdir())) == 40


def test_prepare_makes_embeddings_and_samples_once(root, encoder, progress, twenty, caplog):
    options = PrepareOptions(download=False, encoder=encoder, protocol="both", batch_size=16)
    prepare(COCO, root, options, progress)
    assert root_of("coco") == root
    made = sorted(path.name.rpartition("-")[0] for path in (root / "lad_eval/annotations").iterdir())
    sizes = ["n10", "n12", "n2", "n4", "n6", "n8"]
    assert [name for name in made if name.startswith("official-random")] == [f"official-random-{n}" for n in sizes]
    assert "official-adversarial-n4" in made
    assert "strict-adversarial-n4" in made
    before = {path: path.stat().st_mtime_ns for path in (root / "lad_eval").rglob("*") if path.is_file()}
    prepare(COCO, root, options, progress)
    kept = {path: path.stat().st_mtime_ns for path in before if path.name != "manifest.json"}
    assert {path: time for path, time in before.items() if path.name != "manifest.json"} == kept
    folder, found = status(COCO, None)
    assert (folder, found.ready) == (root, True)
    assert "val2014/: 40 images" in found.lines
    assert "embeddings of tiny-clip: there" in found.lines
    assert "samples, official random: N = 2, 4, 6, 8, 10, 12" in found.lines
    assert verify(COCO, None, progress) == []


def test_another_caption_makes_other_samples(root, progress, twenty):
    options = PrepareOptions(download=False, encoder="none")
    prepare(COCO, root, options, progress)
    recipe = Recipe("official", Order("random", 4, 20, 5))
    before = read_set(root, recipe)
    change(root / CAPTIONS, lambda t: [a.update(caption="changed") for a in t["annotations"]])
    faults = verify(COCO, root, progress)
    assert len(faults) == 6
    assert "made of other captions, images or embeddings; prepare again" in faults[0]
    prepare(COCO, root, options, progress)
    after = read_set(root, recipe)
    assert [a.image_ids for a in after.test] == [a.image_ids for a in before.test]
    assert {a.caption for a in after.test} == {"changed"}
    assert verify(COCO, root, progress) == []


def test_damaged_samples_are_made_again(root, progress, twenty):
    options = PrepareOptions(download=False, encoder="none")
    prepare(COCO, root, options, progress)
    recipe = Recipe("official", Order("random", 4, 20, 5))
    path = annotations_folder(root, recipe) / "test.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    assert read_set(root, recipe) is None
    assert any("damaged or of another version" in fault for fault in verify(COCO, root, progress))
    prepare(COCO, root, options, progress)
    assert path.read_bytes() == whole


def test_verify_names_damaged_pictures_and_embeddings(root, encoder, progress):
    prepare(COCO, root, PrepareOptions(download=False, encoder=encoder), progress)
    (root / "val2014" / coco_name(3)).write_bytes(b"x")
    part = next((root / "lad_eval/embeddings/tiny-clip").glob("*.safetensors"))
    part.write_bytes(b"x")
    faults = verify(COCO, root, progress)
    assert any(coco_name(3) in fault and "it is damaged or no image" in fault for fault in faults)
    assert any("embeddings are damaged or gone" in fault for fault in faults)
    for name in (CAPTIONS, INSTANCES):
        (root / name).unlink()
    where = f"`lad-eval data status coco --root {root}` says where to get it."
    assert verify(COCO, root, progress) == [f"{root / name}: missing; {where}" for name in (CAPTIONS, INSTANCES)]


def test_too_few_pictures_for_the_bundled_tasks_are_told_and_no_fault(root, encoder, progress, caplog):
    with caplog.at_level(logging.WARNING):
        prepare(COCO, root, PrepareOptions(download=False, encoder=encoder), progress)
    assert "The bundled random tasks cannot be run" in caplog.text
    assert "40 images are too few for 1000 samples" in caplog.text


def test_without_the_default_encoder_the_random_setting_is_ready(root, progress, twenty, caplog):
    with caplog.at_level(logging.WARNING):
        prepare(COCO, root, PrepareOptions(download=False), progress)
    assert "Hard negatives are not mined, tasks of the random setting can be run" in caplog.text
    assert status(COCO, None)[1].ready
    with pytest.raises(DataError, match="no such folder with an encoder"):
        prepare(COCO, root, PrepareOptions(download=False, encoder="./none-here"), progress)


def test_samples_say_where_they_come_from(root, encoder, progress):
    prepare(COCO, root, PrepareOptions(download=False, encoder=encoder), progress)
    recipe = Recipe("official", Order("adversarial", 3, 10, 5), encoder)
    index = COCO.index(root)
    made = make_set(root, recipe, index)
    assert made.provenance["recipe"]["encoder"] == "tiny-clip"
    assert made.provenance["index"] == index.digest
    assert made.provenance["embeddings"]
    assert len(made.test) == 10
    with pytest.raises(NoEmbeddingsError, match="no embeddings of the encoder other"):
        make_set(root, Recipe("official", recipe.order, "other"), index)


def test_the_index_is_noted_and_read_anew_when_a_file_changes(root):
    first = COCO.index(root)
    assert (root / "lad_eval/index.json").is_file()
    assert COCO.index(root) == first
    (root / "lad_eval/index.json").write_text("{")
    assert COCO.index(root) == first
    change(root / CAPTIONS, lambda t: t["annotations"][1].update(caption="changed caption"))
    assert COCO.index(root).captions[coco_name(0)] == "changed caption"


def test_an_unknown_protocol_of_the_data_set_is_refused(root, progress):
    from lad_eval.data.flickr8k import FLICKR8K

    with pytest.raises(DataError, match="flickr8k has no protocol 'official'; there is strict"):
        prepare(FLICKR8K, root, PrepareOptions(download=False, protocol="official"), progress)
