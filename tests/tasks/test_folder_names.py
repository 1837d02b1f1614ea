"""Names of images in a captions file, and the files that they mean."""

import json
import unicodedata

import pytest
from PIL import Image

from lad_eval.tasks.registry import load_task
from tests.tasks.folder_tasks import both, refused


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
@pytest.mark.parametrize("file", ["NFC", "NFD"])
def test_names_are_found_in_whichever_normal_form_the_disk_has_them(tmp_path, disk, file, caplog):
    (tmp_path / "photos" / unicodedata.normalize(disk, "été")).mkdir(parents=True)
    told = {}
    for i in range(30):
        name = f"été/ö{i:02}.png"
        Image.new("RGB", (24, 16), (i * 7, i, 255 - i)).save(tmp_path / "photos" / unicodedata.normalize(disk, name))
        told[unicodedata.normalize(file, name)] = f"picture {i}"
    (tmp_path / "captions.json").write_text(json.dumps(told))
    (tmp_path / "t.yaml").write_text("source: folder\ncandidates: 4\ndata: {images: photos, captions: captions.json}\n")
    samples = [*both(load_task(tmp_path / "t.yaml"))[0]]
    assert len(samples) == 22
    assert {sample.id for sample in samples} <= told.keys()
    assert caplog.text == ""


def test_a_picture_on_disk_in_another_normal_form_is_not_without_a_caption(album, tmp_path, caplog):
    path = album()
    Image.new("RGB", (3, 3), "red").save(tmp_path / "photos" / unicodedata.normalize("NFD", "ü.png"))
    captions = json.loads((tmp_path / "captions.json").read_text())
    (tmp_path / "captions.json").write_text(json.dumps({**captions, unicodedata.normalize("NFC", "ü.png"): "red"}))
    load_task(path)
    assert "without a caption" not in caplog.text


def test_pictures_of_one_name_in_two_folders_are_two(tmp_path):
    told = {}
    for i in range(30):
        for folder in ("c0", "c1"):
            (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
            colour = (i * 7, i, 200 if folder == "c0" else 20)
            Image.new("RGB", (24, 16), colour).save(tmp_path / "photos" / folder / f"{i}.png")
            told[f"{folder}/{i}.png"] = f"picture {i} of {folder}"
    (tmp_path / "captions.json").write_text(json.dumps(told))
    (tmp_path / "t.yaml").write_text("source: folder\ncandidates: 4\ndata: {images: photos, captions: captions.json}\n")
    test, calibration = both(load_task(tmp_path / "t.yaml"))
    assert len({sample.id for sample in test}) == 52
    assert {sample.id for sample in (*test, *calibration)} <= told.keys()
    for sample in test:
        assert "/".join(sample.images[sample.gold].path.parts[-2:]) == sample.id


def test_folders_in_front_of_every_name_are_dropped_where_they_are_not_there(album, tmp_path):
    expected = load_task(album()).fingerprint
    told = json.loads((tmp_path / "captions.json").read_text())
    assert load_task(album(captions={f"data/photos/{name}": text for name, text in told.items()})).fingerprint == expected


def hostile(tmp_path, name):
    (tmp_path / "outside").mkdir(exist_ok=True)
    Image.new("RGB", (3, 3), "red").save(tmp_path / "outside" / "1.png")
    return {**{f"p{i:03}.png": f"picture number {i}" for i in range(30)}, name.format(tmp_path): "red"}


@pytest.mark.parametrize(
    "name",
    ["../outside/1.png", "{}/outside/1.png", "p/../../outside/1.png", "..\\outside\\1.png", "C:\\outside\\1.png", "C:1.png"],
)
def test_names_that_lead_out_of_the_folder_are_refused(album, tmp_path, name):
    path = album(captions=hostile(tmp_path, name))
    assert f"captions.json: the name {name.format(tmp_path)!r} leads out of the folder of images" in refused(path)
    assert "allow_outside: true" in refused(path)


@pytest.mark.parametrize("name", ["../outside/1.png", "{}/outside/1.png"])
def test_names_may_lead_out_of_the_folder_where_the_task_allows_it(album, tmp_path, name):
    task = load_task(album(captions=hostile(tmp_path, name), data="allow_outside: true"))
    assert (tmp_path / "outside" / "1.png").samefile(task.source.pictures[name.format(tmp_path)].path)


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000, "", " ", ".", "p000.png/x"])
def test_names_that_no_file_can_have_are_told(album, tmp_path, name):
    told = {**{f"p{i:03}.png": f"picture {i}" for i in range(30)}, name: "red"}
    path = album(captions=told)
    if name.strip():
        assert load_task(path).source.notes()[0].startswith("1 of 31 images with a caption are missing and left out")
    else:
        assert "an image's name must be text" in refused(path)


def test_absolute_names_inside_the_folder_and_links_are_followed(album, tmp_path):
    path = album(captions={str(tmp_path / "photos" / f"p{i:03}.png"): f"picture {i}" for i in range(30)})
    assert len(list(load_task(path).samples())) == 22
    (tmp_path / "photos" / "p000.png").rename(tmp_path / "elsewhere.png")
    (tmp_path / "photos" / "p000.png").symlink_to(tmp_path / "elsewhere.png")
    assert len(list(load_task(path).samples())) == 22
