import contextlib
import hashlib
import json
import logging
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lad_eval.errors import DataError
from lad_eval.tasks.files import SpecError
from lad_eval.tasks.plan import plan
from lad_eval.tasks.registry import load_task
from lad_eval.tasks.sources.base import Picture
from lad_eval.tasks.sources.folder import FolderSource
from lad_eval.tasks.validate import validate
from tests.tasks.folder_tasks import both, names, refused


def test_a_task_of_three_lines_of_data_goes_through_to_requests(album):
    task = load_task(album())
    made = plan(task, orders=("identity", "cyclic"), calibration=True)
    assert len(made.evaluated) == (30 - 8) * 5
    first = made.requests[0]
    assert first.images[first.gold_position].path.name == first.sample_id
    assert first.images[0].load().size == (24, 16)


@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_every_picture_is_an_anchor_once_and_samples_are_well_formed(album, n):
    test, calibration = both(load_task(album(40, n)))
    anchors = [s.id for s in test + calibration]
    assert len(set(anchors)) == len(anchors) == 40 - max(5, 2 * n) + 5
    for sample in test + calibration:
        shown = [image.path.name for image in sample.images]
        assert len(set(shown)) == n
        assert shown[sample.gold] == sample.id
        assert sample.caption == f"picture number {int(sample.id[1:4])}"


def test_pictures_of_calibration_are_not_shown_in_test_where_there_are_enough(album):
    test, calibration = both(load_task(album(30)))
    assert not {n for s in names(test) for n in s} & {n for s in names(calibration) for n in s}
    assert len(test) == 22


def test_few_pictures_keep_the_answers_apart_and_say_so(album, caplog):
    with caplog.at_level(logging.WARNING):
        test, calibration = both(load_task(album(12)))
    assert "12 images are too few for separate calibration images" in caplog.text
    assert (len(test), len(calibration)) == (7, 5)
    assert not {s.id for s in test} & {s.id for s in calibration}


def test_the_right_answer_stands_at_every_place_once_in_every_n_samples(album):
    golds = [s.gold for s in load_task(album(60)).samples()]
    blocks = [tuple(golds[i : i + 4]) for i in range(0, len(golds), 4)]
    assert all(sorted(block) == [0, 1, 2, 3] for block in blocks)
    assert len(set(blocks)) > 4


def test_the_draw_is_the_same_again_and_another_with_another_seed(album):
    path = album()
    first = names(both(load_task(path))[0])
    assert names(both(load_task(path))[0]) == first
    assert names(both(load_task(album(data="seed: 1")))[0]) != first


def test_a_limit_only_shortens(album):
    task = load_task(album())
    assert list(task.samples("test", 7)) == list(task.samples("test"))[:7]
    assert len(list(load_task(album(extra="samples: 9")).samples("test"))) == 9


def test_captions_that_say_the_same_are_never_candidates_together(album):
    captions = {f"p{i:03}.png": ["A dog.", "a  dog", "A DOG", f"thing {i}"][i % 4] for i in range(40)}
    test, calibration = both(load_task(album(40, captions=captions)))
    for sample in test + calibration:
        dogs = [image for image in sample.images if "dog" in captions[image.path.name].lower()]
        assert len(dogs) <= 1


def test_the_fingerprint_is_of_content_and_not_of_place(album, tmp_path):
    path = album()
    before = load_task(path).fingerprint
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("photos", "captions.json", "album.yaml"):
        shutil.copytree(tmp_path / name, moved / name) if name == "photos" else shutil.copy(tmp_path / name, moved / name)
    assert load_task(moved / "album.yaml").fingerprint == before
    Image.new("RGB", (24, 16), "black").save(moved / "photos" / "p003.png")
    assert load_task(moved / "album.yaml").fingerprint["data"] != before["data"]
    told = json.loads((tmp_path / "captions.json").read_text())
    (tmp_path / "captions.json").write_text(json.dumps({**told, "p003.png": "something else"}))
    assert load_task(path).fingerprint["data"] != before["data"]


def test_a_pictures_digest_is_that_of_its_bytes_read_once(album, tmp_path):
    album()
    picture = Picture(tmp_path / "photos" / "p001.png")
    content = picture.path.read_bytes()
    assert picture.digest == hashlib.sha256(content).hexdigest()
    picture.path.unlink()
    assert picture.digest == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_is_read_as_rgb(tmp_path, mode):
    path = tmp_path / "x.tiff"
    Image.new(mode, (5, 4)).save(path)
    assert (Picture(path).load().mode, Picture(path).load().size) == ("RGB", (5, 4))


def test_a_photo_is_turned_the_way_its_camera_was(tmp_path):
    path = tmp_path / "x.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 3)).save(path, exif=exif)
    assert Picture(path).load().size == (3, 6)


def test_what_is_missing_is_named(album, tmp_path):
    path = album()
    (tmp_path / "captions.json").rename(tmp_path / "caption.json")
    assert "no such captions file. Did you mean 'caption.json'?" in refused(path)
    (tmp_path / "photos").rename(tmp_path / "photo")
    assert "photos: no such folder of images. Did you mean 'photo'?" in refused(path)


@pytest.mark.parametrize(
    ("count", "n", "extra", "says"),
    [
        (5, 4, "", "5 images are too few: calibration takes 5, and none is left to test."),
        (6, 8, "", "6 images with 6 different captions are too few for 8 candidates."),
        (30, 4, "samples: 23", "22 images are left for test samples, not 23; lower `samples:` or leave it out."),
        (30, 4, "setting: given", "has the settings random and adversarial, not 'given'."),
    ],
)
def test_too_little_is_told(album, count, n, extra, says):
    assert says in refused(album(count, n, extra=extra))


def test_one_caption_for_all_is_told(album):
    assert "with 1 different captions are too few" in refused(album(20, captions={f"p{i:03}.png": "same" for i in range(20)}))


def test_wrong_options_are_told_with_file_and_key(album):
    with pytest.raises(SpecError, match=r"album\.yaml: data\.sead: unknown key. Did you mean 'seed'\?"):
        load_task(album(data="sead: 1"))


def test_pictures_without_a_caption_are_left_out_and_reported(album, tmp_path, caplog):
    path = album()
    Image.new("RGB", (3, 3)).save(tmp_path / "photos" / "zz.JPG")
    with caplog.at_level(logging.WARNING):
        load_task(path)
    assert "1 images without a caption are left out, such as zz.JPG" in caplog.text


def test_pictures_that_are_not_there_are_left_out_counted_and_noted(album, tmp_path, caplog):
    path = album()
    for name in ("p003.png", "p007.png"):
        (tmp_path / "photos" / name).unlink()
    with caplog.at_level(logging.WARNING):
        task = load_task(path)
    line = "2 of 30 images with a caption are missing and left out, such as p003.png."
    assert f"photos: {line}" in caplog.text
    assert task.source.notes() == [line]
    assert len(list(task.samples())) == 28 - 8
    assert validate(path) == []
    for number in range(30):
        (tmp_path / "photos" / f"p{number:03}.png").unlink(missing_ok=True)
    Image.new("RGB", (3, 3)).save(tmp_path / "photos" / "other.png")
    assert "none of the 30 images that it names, such as p000.png, is in " in refused(path)
    assert "which holds 1 picture, such as other.png." in refused(path)


def test_a_file_that_is_no_picture_is_named_before_any_model_runs(album, tmp_path):
    path = album()
    (tmp_path / "photos" / "p004.png").write_text("<html>")
    assert "p004.png: cannot be read: it is damaged or no image." in refused(path)
    assert any("p004.png: cannot be read" in problem for problem in validate(path))


def test_a_truncated_picture_is_named_when_it_is_read_and_by_validate(album, tmp_path):
    path = album()
    picture = Picture(tmp_path / "photos" / "p004.png")
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    noise.save(picture.path)
    picture.path.write_bytes(picture.path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"p004\.png: cannot be read: it is damaged"):
        picture.load()
    assert len(problems := validate(path)) == 1
    assert "album.yaml: " in problems[0]
    assert "p004.png" in problems[0]


def test_two_files_of_one_picture_are_named(album, tmp_path):
    path = album(12)
    for i in range(1, 12):
        shutil.copy(tmp_path / "photos" / "p000.png", tmp_path / "photos" / f"p{i:03}.png")
    assert "are the same picture; remove one and its caption." in refused(path)
    assert len(validate(path)) == 11


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8), kept=st.floats(0, 1))
def test_any_damage_gives_a_picture_or_a_line(tmp_path, form, changes, kept):
    path = tmp_path / f"x.{form.lower()}"
    Image.effect_noise((20, 12), 90).convert("RGB").save(path, form)
    content = bytearray(path.read_bytes())
    for where, value in changes:
        content[int(where * (len(content) - 1))] = value
    path.write_bytes(content[: int(kept * len(content))])
    picture = Picture(path)
    with contextlib.suppress(DataError):  # and nothing else
        assert picture.load().mode == "RGB"
        assert len(picture.digest) == 64


def test_a_source_can_be_made_without_yaml(album, tmp_path):
    album()
    source = FolderSource(
        images=tmp_path / "photos", captions=tmp_path / "captions.json", candidates=3, samples=None, calibration_samples=2
    )
    assert len(list(source.samples("test"))) == 30 - 6
    assert len(list(source.samples("calibration"))) == 2
